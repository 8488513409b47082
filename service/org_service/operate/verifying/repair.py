"""`orgs repair`: what a verification found is mended, and nothing else is touched.

A row of the table is written as the journal's last change left it; a fact as its topic has it. A record that is missing
on a topic, or wrong, is sent again as the relay makes it from the journal: same key, partition, body, headers and ids.
Where the journal itself is in doubt, table and topics are left alone: they may be what is right.

Records go out under the relay's own transactional id: that fences the relay for the moment of one transaction, so what
is sent to `orgs.state` can't overtake, or be overtaken by, a later change of the same organization; the relay then
takes its id back and goes on from the position, which the transaction repeats. Declined: to ask the relay to send them
(a queue in Postgres that its hot path would have to look at), and a transactional id of our own (no order between the
two: an old state could win).

Each item is looked at again right before: what is as it must be by then, or has a later change, is left alone. Steps in
Kafka note the run's position on `orgs.relay` in their transaction, so a run that was killed sends nothing twice.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, ClassVar, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from org_service import probes
from org_service.domain.outcomes import JournaledOutcome
from org_service.errors import PreconditionError, RetryError
from org_service.kafka import relay_position
from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import Producer, unknown_fate
from org_service.kafka.record_batches import RecordBatch, TopicBatches
from org_service.operate.operation import Execution, Plan, Tally, explain_left_out, open_database
from org_service.operate.verifying import facts, rows
from org_service.operate.verifying.comparing import read_last_changes
from org_service.operate.verifying.report import REPAIRED, Difference, Kind, Report, Verdict
from org_service.operate.verifying.verification import Asked, verify
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import journal, organizations, verification
from org_service.store.database import Database
from org_service.wire.changes import encode
from org_service.wire.position import PARTITION, Position

STEP_ITEMS_MAX: Final = 500
_ROWS: Final = frozenset({Kind.ORGANIZATION_DIFFERS, Kind.ORGANIZATION_MISSING})
_STATES: Final = frozenset({Kind.STATE_DIFFERS, Kind.STATE_MISSING, Kind.TOMBSTONE_MISSING})
_FOLDED: Final = _ROWS | _STATES
"""Made of an organization's last change."""
_DOUBTS: Final = frozenset({Kind.JOURNAL_VERSIONS, Kind.JOURNAL_CHANGED})
"""Say that an organization's rows of the journal are not what they were."""
_EVENTS: Final = frozenset({Kind.EVENT_DIFFERS, Kind.EVENT_MISSING})
_RESULTS: Final = frozenset({Kind.RESULT_DIFFERS, Kind.RESULT_MISSING})
_ORDER: Final = (*sorted(_ROWS), Kind.FACT_DIFFERS, *sorted(_EVENTS), *sorted(_RESULTS), *sorted(_STATES))


class Item(BaseModel):
    """One thing to mend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    subject: str
    position: int | None
    source: str = ""
    """Of a fact: its topic."""


class Parameters(BaseModel):
    """What makes a repair again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    verified: int
    items: tuple[Item, ...]
    left: tuple[str, ...] = ()
    """What can't be repaired, and why."""


class Repair:
    """A repair."""

    kind: ClassVar[str] = "repair"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._kafka = settings.kafka
        self._asked = Parameters.model_validate(parameters)

    @classmethod
    async def make(cls, settings: Settings) -> "Repair":
        """Verify, and make one for what differs.

        Raises:
            PreconditionError: Nothing differs, or it can't be told.
        """
        report = await verify(settings, Asked())
        return cls(settings, choose(report).model_dump(mode="json"))

    @property
    def resource(self) -> str:
        """Everything."""
        return "repair"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What is mended."""
        return self._asked.model_dump(mode="json")

    async def plan(self) -> Plan:
        """See what would be written, as of the journal."""
        tally = Tally()
        positions = {each.position for each in self._asked.items if each.position is not None}
        async with open_database(self._settings, "reader") as database, database.connect() as conn:
            there = await verification.read_rows_at(conn, positions)
        for item in self._asked.items:
            row = None if item.position is None else there.get(item.position)
            content = b"" if row is None else blake2b(repr(row).encode(), digest_size=16).digest()
            shown = {"what": item.kind, "subject": item.subject, "position": item.position}
            tally.add(item.model_dump_json().encode() + content, lambda shown=shown: shown)
        notes = [
            "The relay waits for a moment while records are sent; commands go on being decided.",
            *explain_left_out("not repaired", self._asked.left),
        ]
        return tally.plan({"verified as of position": self._asked.verified}, notes)

    async def run(self, execution: Execution) -> None:
        """Mend what was planned, in steps."""
        items = self._asked.items
        in_tables = sum(each.kind in _ROWS or each.kind is Kind.FACT_DIFFERS for each in items)
        done = int(execution.progress or 0)
        async with open_database(self._settings, "reader") as database:
            while done < in_tables:
                done = await self._write(execution, items[done : min(in_tables, done + STEP_ITEMS_MAX)], done)
                await execution.pace(STEP_ITEMS_MAX)
            if done < len(items):
                await self._send_all(execution, database, done)

    async def _write(self, execution: Execution, items: Sequence[Item], done: int) -> int:
        """Rows of the tables, in the transaction that notes the step."""
        counts: Counter[str] = Counter()
        # The owner: nobody else may write both the tables of a worker and those of the reference data.
        owner = Database(self._settings.database, "owner", direct=True)
        ids = sorted({UUID(each.subject) for each in items if each.kind in _ROWS})
        async with owner.begin() as conn:
            there = await organizations.lock(conn, ids, ())
            last = await read_last_changes(conn, ids, await journal.read_head(conn))
            for item in items:
                if item.kind in _ROWS:
                    row, now = last.get(UUID(item.subject)), there.get(UUID(item.subject))
                    must_be = None if row is None else rows.restore(row)
                    if must_be is None:  # erased: nobody knows what else the row said
                        counts["conflict"] += 1
                    elif now == must_be:
                        counts["as it must be"] += 1
                    elif await organizations.put_back(conn, must_be):
                        counts["repaired"] += 1
                    else:
                        counts["conflict"] += 1
                else:
                    repaired = await facts.put_back(conn, self._kafka, item.source, item.subject)
                    counts["repaired" if repaired else "as it must be"] += 1
            await execution.advance(conn, done + len(items), counts)
            if probes.listeners:
                await probe("operate.before_commit")
        if probes.listeners:
            await probe("operate.after_commit")
        return done + len(items)

    async def _send_all(self, execution: Execution, database: Database, done: int) -> None:
        """Records, a transaction a step."""
        items, name = self._asked.items, f"repair {execution.run_id}"
        while done < len(items):
            producer = Producer(
                self._kafka,
                f"{self._kafka.topic_prefix}{self._settings.relay.name}",
                self._settings.relay.transaction_timeout_ms,
            )
            step = items[done : done + execution.step_max(STEP_ITEMS_MAX)]
            try:
                at, sent = await self._send(producer, database, name, step, done)
            finally:
                await producer.close()
            await execution.record(at, sent)
            done = at

    async def _send(
        self, producer: Producer, database: Database, name: str, step: Sequence[Item], done: int
    ) -> tuple[int, Mapping[str, int]]:
        """One step. Returns how far the run is, and what became of its items."""
        names, settings = self._kafka.topics, self._settings
        topics = (names.events, names.results, names.state, names.relay)
        async with unknown_fate("beginning"), asyncio.timeout(settings.relay.publish_timeout_s):
            partitions = await producer.start(topics)
            end = await producer.find_end(TopicPartition(names.relay, PARTITION))
            before = await relay_position.read(self._kafka, names.relay, name, end)
            last = await relay_position.read(self._kafka, names.relay, settings.relay.name, end)
        if before is not None and before.position > done:
            return before.position, {"repaired": before.position - done}
        if last is None:
            raise RetryError("the relay has published nothing yet")
        batches: dict[TopicPartition, list[RecordBatch]] = {}
        now_ms = int(time.time() * 1000)
        to = {topic: TopicBatches(topic, partitions[topic], batches, now_ms) for topic in topics}
        counts: Counter[str] = Counter()
        for item, row in await self._read(database, step, last.position):
            if row is None:
                counts["as it must be"] += 1
                continue
            records = encode(row)
            topic, record = names.results, records.result
            if item.kind in _EVENTS:
                topic, record = names.events, records.event
            elif item.kind in _STATES:
                topic, record = names.state, records.state
            assert record is not None
            to[topic].append(records.key, records.key_hash, *record)
            counts["repaired"] += 1
        said = Position(
            position=last.position,
            command_id=last.command_id,
            recorded_at=last.recorded_at,
            ends=last.ends,  # what Kafka lost before this is still to be missed by the relay
            looked=last.looked,
            behind=last.behind,
            **relay_position.get_partitioning(self._kafka, last)._asdict(),
        )
        to[names.relay].append(settings.relay.name.encode(), PARTITION, said.to_value(), [])
        to[names.relay].append(name.encode(), PARTITION, Position(position=done + len(step)).to_value(), [])
        if probes.listeners:
            await probe("operate.before_publish")
        async with unknown_fate("the transaction"), asyncio.timeout(settings.relay.publish_timeout_s):
            await producer.publish(batches)
        if probes.listeners:
            await probe("operate.after_publish")
        return done + len(step), counts

    async def _read(
        self, database: Database, step: Sequence[Item], through: int
    ) -> list[tuple[Item, JournaledOutcome | None]]:
        """The rows to send; none for a state that has a later change, which is published or will be."""
        async with database.connect() as conn:
            there = await verification.read_rows_at(conn, [each.position for each in step if each.position is not None])
            ids = {UUID(each.subject) for each in step if each.kind in _STATES}
            latest = await journal.select_states(conn, ids, through)
        found: list[tuple[Item, JournaledOutcome | None]] = []
        for item in step:
            row = there.get(item.position or 0)
            if item.kind in _STATES and row is not None:
                state = latest.get(UUID(item.subject))
                row = row if state is not None and state.position == row.position else None
            found.append((item, row))
        return found


def choose(report: Report) -> Parameters:
    """What of a report is repaired.

    Raises:
        PreconditionError: Nothing is, and the message says why.
    """
    if report.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR):
        why = next(each.why for each in report.comparisons if each.verdict == report.verdict)
        raise PreconditionError(f"the verification is {report.verdict}, so nothing is repaired: {why}")
    items: dict[Item, None] = {}
    left: dict[str, None] = {}
    doubt = _doubt(report)
    for each in report.differences:
        if each.kind in REPAIRED and (why := doubt(each)):
            left[_explain(each, why)] = None
        elif each.kind in REPAIRED:
            source = each.left if each.kind is Kind.FACT_DIFFERS else ""
            position = None if each.kind in _ROWS else each.position
            items[Item(kind=each.kind, subject=each.subject, position=position, source=source)] = None
        else:
            left[_explain(each, each.remedy.removeprefix("nothing is repaired: "))] = None
    if not items:
        raise PreconditionError(
            "nothing that `orgs repair` can mend differs" + "".join(f"\n  {line}" for line in left) + "."
        )
    ordered = sorted(items, key=lambda each: (_ORDER.index(each.kind), each.position or 0, each.subject))
    return Parameters(verified=report.position, items=tuple(ordered), left=tuple(left))


def _doubt(report: Report) -> Callable[[Difference], str]:
    """Why something is not written as the journal has it; empty where it may be.

    Table and topics may be right, and the journal wrong: it lacks a later change, or says one that never was.
    """
    unnamed = any(report.counts[kind] > sum(each.kind is kind for each in report.differences) for kind in _DOUBTS)
    doubted = {each.subject for each in report.differences if each.kind in _DOUBTS}

    def why(each: Difference) -> str:
        if each.kind is Kind.FACT_DIFFERS:
            return ""
        if each.kind in _FOLDED and report.counts[Kind.JOURNAL_HOLE]:
            return "the journal lacks rows, perhaps of it"
        if unnamed:
            return "the journal is in doubt in more places than are named"
        return "the journal's rows of it are in doubt" if each.subject in doubted else ""

    return why


def _explain(each: Difference, why: str) -> str:
    at = "" if each.position is None else f" at position {each.position:,}"
    return f"{each.kind} {each.subject}{at}: {why}"
