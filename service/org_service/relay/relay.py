"""The relay: one leader reads the journal and publishes it, exactly once and in order; the others stand by.

    STANDING_BY --> REBUILDING --> READY <--> IN_TRANSACTION
         ^            |   ^                         |
         |            |   +------- UNKNOWN <--------+   Kafka didn't say a plain yes: close the producer, wait
         +------------+-----------------------------+   Postgres or the lock was lost, or another one fenced ours

Rebuilding is the whole of recovery: InitProducerId finishes whatever the former producer (ours, or a leader's before
us) left behind, then the position is read from Kafka. Nothing is remembered from before, so every kind of doubt has
the same cure. The lock only keeps two leaders from fencing each other forever; what keeps publishing exact is Kafka's
fencing. While a transaction is on its way the next chunk is read and encoded; it is sent only if that one succeeds.

An outage is waited out with back-off and jitter, forever: nothing is skipped, and a restart would not help.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from org_service import probes
from org_service.errors import RetryError, StopError, TopicsMissingError
from org_service.kafka import relay_position
from org_service.kafka.client import TopicPartition
from org_service.kafka.producer import FencedError, Producer, UnknownFateError, unknown_fate
from org_service.kafka.topics import explain_partitions
from org_service.kafka.transactions import TransactionWatch
from org_service.probes import probe
from org_service.relay.audit import Auditor, Healer, finish_open, see_no_other_relay, show_losses
from org_service.relay.chunks import Chunk, Layout
from org_service.relay.ends import Ends, LostError
from org_service.relay.source import Source
from org_service.relay.traced import add_spans
from org_service.settings import Settings
from org_service.store.leader import JournalSignal, LeaderLock
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import (
    RELAY_LAG_POSITIONS,
    RELAY_LAG_SECONDS,
    RELAY_LEADER,
    RELAY_POSITION,
    RELAY_REBUILDS,
    RELAY_ROWS,
    RELAY_SECONDS,
)
from org_service.telemetry.tracing import active
from org_service.waiting import Heartbeat, Patience, Trouble, pause, run_unless
from org_service.wire.position import PARTITION, Partitioning

log = get_logger(__name__)

PARTITIONS_LOOK_S: Final = 3.0
"""Between looks at the topics' partitions, a small request each. What is sent until then is in order: a producer keeps
the number of partitions that it began with."""
LOCK_CHECK_INTERVAL_S: Final = 1.0
"""How late the loss of the lock may be noticed. Nothing is published twice by then: a new leader fences this one."""

_SAID: Final = {
    "foreign": "a foreign program writes on the relay's topics: nothing is published",
    "held": "what is published can't be seen yet",
    "lost": "Kafka lost records, the transaction is not committed",
}
"""Where it is not that Kafka did not confirm."""


class State(StrEnum):
    """Where the relay stands."""

    NOT_STARTED = "not started"
    """What the process stands on is waited for."""
    STANDING_BY = "standing by"
    REBUILDING = "rebuilding"
    READY = "ready"
    IN_TRANSACTION = "in transaction"
    UNKNOWN = "unknown"


class _Rebuilt(NamedTuple):
    """What a producer begins with."""

    layout: Layout
    position: int
    ends: Ends


class Relay:
    """One relay process. `run` once; the rest may be asked at any time from the same loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._relay = settings.relay
        self._name = f"{settings.kafka.topic_prefix}{settings.relay.name}"
        """Of the lock and the transactional id."""
        self._source = Source(settings.database)
        topics = settings.kafka.topics
        self._transactions = TransactionWatch(settings.kafka, [topics.results, topics.events, topics.state])
        self._producer: Producer | None = None
        self._changed = asyncio.Event()
        self._started = False
        self._partitioning = Partitioning(settings.kafka.partitions)
        self._suspects: frozenset[TopicPartition] = frozenset()
        """Partitions that lost something, as the last producer saw."""
        self._doubt: str | None = None
        """Why the producer is being replaced."""
        self._waiting_since: datetime | None = None
        self.state = State.NOT_STARTED
        self.position: int | None = None
        """The last position known to be published; None until it was read from Kafka."""
        self.heartbeat = Heartbeat()
        """Of the loop."""
        self._tries = aiter(self._patience(None))

    @property
    def leading(self) -> bool:
        """Whether this is the leader."""
        return self.state not in (State.NOT_STARTED, State.STANDING_BY)

    async def wait_until(self, reached: Callable[["Relay"], bool]) -> None:
        """Wait until `reached(self)`, judged at each change of state or position."""
        while not reached(self):
            await self._changed.wait()

    async def run(self, stop: asyncio.Event) -> None:
        """Stand by and lead, until `stop` is set: then the transaction in flight is finished, and everything closed.

        Raises:
            StopError: An operator must act; the message says how. Nothing is left open.
        """
        RELAY_LAG_SECONDS.set_function(self._lag_s)
        show_losses(self._settings.kafka.topics)
        self._stand_by()
        watching = asyncio.create_task(self._transactions.run())
        self._tries = aiter(self._patience(stop))
        try:
            async for attempt in self._tries:
                with attempt:
                    await self._term(stop)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._source.close()

    def _patience(self, stop: asyncio.Event | None) -> Patience:
        return Patience(
            "the relay steps down and stands by again",
            self._relay.retry_waits_s,
            log=log,
            judge=_judge,
            heartbeat=self.heartbeat,
            stop=stop,
        )

    async def _term(self, stop: asyncio.Event) -> None:
        """Become the leader, and lead until the lock, Postgres or the transactional id is lost, or until `stop`."""
        async with AsyncExitStack() as stack:
            lock = await stack.enter_async_context(LeaderLock(self._settings.database, self._name))
            while not await self._try_to_lead(lock):
                self._tries.succeed()
                await pause(self._relay.poll_interval_s, stop, self.heartbeat)
                if stop.is_set():
                    return
            signal = await stack.enter_async_context(JournalSignal(self._settings.database))
            stack.callback(self._stand_by)
            RELAY_LEADER.set(1)
            log.info("this relay is the leader", relay=self._name)
            await _run_until_first_ends(self._lead(signal, stop), self._watch(lock))

    async def _try_to_lead(self, lock: LeaderLock) -> bool:
        if probes.listeners:
            await probe("relay.before_try_to_lead", self)
        return await lock.try_acquire()

    def _stand_by(self) -> None:
        RELAY_LEADER.set(0)
        self._waiting_since = None  # the lag is the leader's to tell
        RELAY_LAG_POSITIONS.set(0)
        self._enter(State.STANDING_BY)

    async def _watch(self, lock: LeaderLock) -> None:
        while True:
            await asyncio.sleep(LOCK_CHECK_INTERVAL_S)
            await lock.check()

    async def _lead(self, signal: JournalSignal, stop: asyncio.Event) -> None:
        """Publish until `stop`, with a new producer after each doubt."""
        while not stop.is_set():
            self._enter(State.REBUILDING)
            relay = self._relay
            self._producer = Producer(self._settings.kafka, self._name, relay.transaction_timeout_ms)
            try:
                rebuilt = await run_unless(stop, self._rebuild(self._producer))
                if rebuilt is not None:
                    self._doubt, self._suspects = None, frozenset()
                    publishing = self._publish_from(rebuilt, signal, stop)
                    watching = self._watch_partitions(self._producer)
                    await _run_until_first_ends(publishing, watching, rebuilt.ends.explain())
            except FencedError:
                RELAY_REBUILDS.labels("fenced").inc()
                raise
            except UnknownFateError as error:
                RELAY_REBUILDS.labels(error.why).inc()
                self._doubt = str(error)
                self._suspects |= error.places if isinstance(error, LostError) else frozenset()
                said = _SAID.get(error.why, "Kafka did not confirm, the producer is being replaced")
                (log.error if error.why == "foreign" else log.warning)(said, state=self.state, why=str(error))
                self._enter(State.UNKNOWN)
            finally:
                producer, self._producer = self._producer, None
                await producer.close()
            if self.state is State.UNKNOWN and not stop.is_set():
                await self._look_at_lag()
                await self._tries.pause()

    async def _rebuild(self, producer: Producer) -> "_Rebuilt":
        """Fence and finish what was before, then read how far the journal is published, and send what Kafka lost."""
        kafka, name = self._settings.kafka, self._relay.name
        topics = kafka.topics
        async with unknown_fate("beginning again"), asyncio.timeout(self._relay.publish_timeout_s):
            try:
                partitions = await producer.connect((topics.events, topics.state, topics.results, topics.relay))
            except TopicsMissingError as error:
                if self._started:
                    raise UnknownFateError(str(error), "refused") from error
                raise StopError(str(error)) from error
            self._started = True
            # Before anybody is fenced: `orgs topics grow` has our transactional id while the topics grow.
            self._partitioning = await relay_position.read_partitioning(kafka, name)
            self._check_partitions(partitions)
            await producer.begin()
            # guarantee 4: the position is read after InitProducerId has ended the former leader's transaction, so it
            # cannot move.
            bounds, opened = await finish_open(producer, partitions)
            self._suspects |= opened
            end = bounds[TopicPartition(topics.relay, PARTITION)].end
            last = await relay_position.read(kafka, topics.relay, name, end)
            if last is None:
                await see_no_other_relay(kafka, name, partitions[topics.events])
            elif relay_position.get_partitioning(kafka, last) != self._partitioning:
                raise UnknownFateError("the topics have just grown", "partitions")
        # guarantee 11: nothing is published after what Kafka lost.
        async with unknown_fate("reading what is published"):
            auditor = Auditor(producer, topics, self._source, last, suspects=self._suspects, beat=self.heartbeat.beat)
            audit = await auditor.run(bounds)
        await self._source.verify(audit.position, audit.command_id)
        layout = Layout(topics, partitions, name, self._partitioning)
        ends = Ends(producer, layout, audit.known)
        if not (audit.whole and audit.told):
            async with unknown_fate("sending again what Kafka lost"):
                await Healer(self._source, ends, layout, audit).run(self._relay.batch_rows_max, self.heartbeat.beat)
        self._reach(audit.position)
        log.info("the relay continues from Kafka's position", position=audit.position, head=self._source.head)
        self._enter(State.READY)
        return _Rebuilt(layout, audit.position, ends)

    async def _watch_partitions(self, producer: Producer) -> None:
        """Look whether keys still go where they went; raises as `_check_partitions`."""
        topics = self._settings.kafka.topics
        while True:
            await asyncio.sleep(PARTITIONS_LOOK_S)
            self._check_partitions(await producer.count_partitions((topics.events, topics.state, topics.results)))

    def _check_partitions(self, found: Mapping[str, int]) -> None:
        """See that keys go where they went before.

        Raises:
            UnknownFateError: A topic has another number of partitions than it must have.
        """
        ours = {topic: number for topic, number in found.items() if topic != self._settings.kafka.topics.relay}
        wanted = dict.fromkeys(ours, self._partitioning.partitions)
        if (wrong := explain_partitions(ours, wanted)) is not None:
            raise UnknownFateError(wrong, "partitions")

    async def _publish_from(self, rebuilt: "_Rebuilt", signal: JournalSignal, stop: asyncio.Event) -> None:
        layout, position, ends = rebuilt
        rows_max = self._relay.batch_rows_max
        ahead: asyncio.Task[Chunk | None] | None = None
        try:
            while not stop.is_set():
                self.heartbeat.beat()
                chunk = await (ahead or self._source.read_next_chunk(position, layout, rows_max))
                ahead = None
                if chunk is None:
                    self._note_caught_up()
                    await run_unless(stop, signal.wait(self._relay.poll_interval_s))
                    continue
                if chunk.more:
                    ahead = asyncio.create_task(self._source.read_next_chunk(chunk.last.position, layout, rows_max))
                await self._publish(ends, chunk)
                position = chunk.last.position
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    async def _publish(self, ends: Ends, chunk: Chunk) -> None:
        """One transaction, within `publish_timeout_s`."""
        self._waiting_since = chunk.oldest
        RELAY_LAG_POSITIONS.set(self._source.head - chunk.first + 1)
        self._enter(State.IN_TRANSACTION)
        began = time.perf_counter()
        async with unknown_fate("the transaction"), asyncio.timeout(self._relay.publish_timeout_s):
            await ends.publish(chunk.batches, chunk.last)
        seconds, tracing = time.perf_counter() - began, active()
        exemplar = add_spans(tracing, chunk.sampled, chunk.rows, began) if tracing and chunk.sampled else None
        RELAY_SECONDS.observe(seconds, exemplar)
        RELAY_ROWS.inc(chunk.rows)
        RELAY_LAG_POSITIONS.set(max(0, self._source.head - chunk.last.position))
        self._tries.succeed()
        log.debug("published", first=chunk.first, last=chunk.last.position)
        self._reach(chunk.last.position)
        self._enter(State.READY)

    def _reach(self, position: int) -> None:
        self.position = position
        RELAY_POSITION.set(position)

    def _note_caught_up(self) -> None:
        self._tries.succeed()
        self._waiting_since = None
        RELAY_LAG_POSITIONS.set(0)

    def _lag_s(self) -> float:
        since = self._waiting_since
        return 0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds())

    async def _look_at_lag(self) -> None:
        """Keep the lag true while Kafka is away; what Postgres says to it is not this moment's worry.

        Where Kafka was away from the beginning nobody knows what is published: then since when it has been tried.
        """
        if self.position is None:
            self._waiting_since = self._waiting_since or datetime.now(UTC)
            return
        with suppress(RetryError):
            self._waiting_since = await self._source.find_waiting_since(self.position)
            RELAY_LAG_POSITIONS.set(max(0, self._source.head - self.position))

    def _enter(self, state: State) -> None:
        self.state = state
        self.heartbeat.beat()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def heartbeats(self) -> Collection[Heartbeat]:
        """That of the loop."""
        return (self.heartbeat,)

    def checks(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """What /readyz asks, by name; a check returns what it saw, or raises."""
        return {
            "postgres": self._check_postgres,
            "kafka": self._check_kafka,
            "transactions": self._transactions.check,
        }

    async def _check_postgres(self) -> str:
        await self._source.ping()
        return "answers"

    async def _check_kafka(self) -> str:
        if self.state is State.STANDING_BY:
            return "standing by, not needed"
        if self.state is State.NOT_STARTED:
            raise RetryError("not started yet")
        producer = self._producer
        if producer is None or self.state not in (State.READY, State.IN_TRANSACTION):
            raise RetryError(f"the relay is {self.state}" + (f": {self._doubt}" if self._doubt else ""))
        if not await producer.ping():
            raise RetryError("no broker responds")
        return f"leader, {self.state}"


def _judge(error: Exception) -> Trouble | None:
    if isinstance(error, StopError):
        return None
    # What is not foreseen is not understood: nothing is skipped, the next term begins from what Kafka has.
    return Trouble(str(error)) if isinstance(error, RetryError) else Trouble(type(error).__name__, foreseen=False)


async def _run_until_first_ends(*steps: Coroutine[Any, Any, Any]) -> None:
    """Run steps in parallel until the first one ends; cancel the others and wait for their end. Raises its error."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
