"""Outcomes that the worker sends itself, after the commit: to duplicates, of parked commands, and for a command id
used for another payload. At least once: a batch that comes again sends them again, and they say the same.
"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from org_events.publishing.publisher import Publisher
from org_events.results import ProblemType
from org_service.domain.decide import Decision, reject
from org_service.domain.fold import Plan, Reply, make_parked_outcome
from org_service.domain.outcomes import KnownOutcome, NewOutcome
from org_service.domain.reasons import SkipReason
from org_service.kafka.client import (
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
)
from org_service.kafka.connection import judge_outage, make_producer
from org_service.settings import KafkaSettings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import RECORDS_SKIPPED
from org_service.waiting import Heartbeat, Patience, Trouble
from org_service.wire.results import ResultRecord, make_result_record

log = get_logger(__name__)

SILENCE_S: Final = 5.0
"""Between heartbeats, and warnings, while Kafka is silent; far less than a loop may be still."""


_REFUSED: Final = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)


def explain_missing_write(topic: str) -> str:
    """What to say where Kafka doesn't let us write."""
    return f"Kafka denies writing to {topic}, where duplicates get their outcome: grant this login Write on it"


class Replies:
    """Sends outcomes to `orgs.results`; waits out Kafka's outages. Several tasks may send at once."""

    def __init__(self, kafka: KafkaSettings, waits_s: tuple[float, float], heartbeat: Heartbeat) -> None:
        """Make one that connects when there is something to send.

        Args:
            kafka: Where.
            waits_s: The first and the longest pause of an outage.
            heartbeat: Beats at each try, and while Kafka is silent.
        """
        self._topic = kafka.topics.results
        self._heartbeat = heartbeat
        self._patience = Patience("replies wait", waits_s, log=log, judge=self._judge, heartbeat=heartbeat)
        self._publisher = Publisher(
            self._topic,
            lambda: make_producer(kafka, linger_ms=2),
        )

    @property
    def outage(self) -> str | None:
        """What replies wait for, None when all is well."""
        return self._patience.outage

    async def stop(self) -> None:
        """Close; what was sent is acknowledged already."""
        await self._publisher.stop()

    async def send(self, plan: Plan, start: int) -> None:
        """Send every reply of a committed plan and wait until Kafka has them.

        A duplicate gets the first outcome again (guarantee 2).

        Args:
            start: The journal position before the plan's first row.
        """
        RECORDS_SKIPPED.labels(SkipReason.REDELIVERED).inc(plan.redelivered)
        if not plan.replies:
            return
        messages = list(_records(plan, start, datetime.now(UTC)))
        async for attempt in self._patience:
            with attempt:
                await self._send(messages)

    def _judge(self, error: Exception) -> Trouble | None:
        if isinstance(error, _REFUSED):
            return Trouble(explain_missing_write(self._topic))
        return judge_outage(error)

    async def _send(self, messages: list[ResultRecord]) -> None:
        waiting = [await self._publisher.append(message.key, message.value, message.headers) for message in messages]
        late = set(waiting)
        while late:
            _, late = await asyncio.wait(late, timeout=SILENCE_S)
            if late:  # an idempotent producer gives none up, and says nothing
                self._heartbeat.beat()
                log.warning("Kafka does not confirm replies, they wait", replies=len(late))
        for each in waiting:
            each.result()


def _records(plan: Plan, start: int, now: datetime) -> Iterator[ResultRecord]:
    for reply in plan.replies:
        RECORDS_SKIPPED.labels(reply.kind).inc()
        if isinstance(reply.of, KnownOutcome):
            yield _first_outcome(reply.of, reply.of.position)
        elif isinstance(reply.of, int):
            yield _first_outcome(plan.journal[reply.of], start + 1 + reply.of)
        else:
            yield _undecided(reply, now)


def _first_outcome(row: KnownOutcome | NewOutcome, position: int) -> ResultRecord:
    """The first outcome, as the relay sends it: the same body and `ce_id`."""
    return make_result_record(
        derived_from=f"result:{position}",
        command_id=row.command_id,
        org_id=row.org_id,
        outcome=row.outcome,
        code=row.code,
        version=row.version,
        organization=row.after,
        position=position,
        problem=row.problem,
        recorded_at=row.recorded_at,
        traceparent=row.traceparent,
    )


def _undecided(reply: Reply, now: datetime) -> ResultRecord:
    """An outcome that is not in the journal; its `ce_id` comes from the record's coordinates."""
    request, record = reply.request, reply.request.record
    word = "parked" if reply.kind == SkipReason.PARKED else "reused"  # as ids were derived ever since
    decision = make_parked_outcome() if reply.kind == SkipReason.PARKED else _reused()
    assert decision.problem is not None
    return make_result_record(
        derived_from=f"{word}:{record.topic}:{record.partition}:{record.offset}:{record.timestamp}",
        command_id=request.command_id,
        org_id=request.org_id,
        outcome=decision.outcome,
        code=decision.code,
        version=None,
        organization=None,
        position=None,
        problem=decision.problem.model_dump_json(),
        recorded_at=now,
        traceparent=request.traceparent,
        final=reply.kind != SkipReason.PARKED,
    )


def _reused() -> Decision:
    return reject(
        ProblemType.COMMAND_ID_REUSED,
        "Another command was sent under this command id before; its outcome stands. Use a new id for each command.",
    )
