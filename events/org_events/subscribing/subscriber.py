"""What a subscribing service uses: every change of every organization, once and in order, from the state they are in.

    store = PostgresStore.over_pool(pool, "billing")
    async with OrganizationSubscriber(bootstrap_servers="kafka:9092", store=store, group="billing") as changes:
        async for change in changes:
            async with change.transaction() as connection:
                await connection.execute("UPDATE customer SET name = $2 WHERE org_id = $1", change.org_id, …)

A subscriber that begins is handed all organizations as they are (`Kind.LOADED`), then each change (`Kind.EVENT`). One
that was away for so long that Kafka no longer has what it missed is handed what differs from what it has
(`Kind.LOADED`, and `Kind.GONE` for deletions). Whatever happens to it, it ends with the service's state (guarantee 12).

**What is once.** In `change.transaction()` the subscriber's own work and how far it is are one transaction: each change
is handled once, whatever is killed and when. Without it a change counts as handled when the next one is asked for, and
that is saved batch by batch: after a kill the last ones come again.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Generator, Mapping
from contextlib import suppress
from typing import Any, Final, Generic, Self, TypeVar, Unpack
from uuid import UUID

from org_events.publishing.connection import ConnectionOptions
from org_events.subscribing.changes import Change, Session
from org_events.subscribing.errors import NotParked, NotRunning
from org_events.subscribing.filters import Filter
from org_events.subscribing.handling import BEHIND, Batch, BatchHandler, ChangeHandler, Handling
from org_events.subscribing.kafka_source import KafkaSource
from org_events.subscribing.lane import Fetched, Lane
from org_events.subscribing.lanes import Lanes, LoadProgress
from org_events.subscribing.lives import Loading, Start
from org_events.subscribing.parking import Patience, pack
from org_events.subscribing.sources import Source, SourceUnavailable
from org_events.subscribing.stores import Store
from org_events.topics import Topics

_log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
"""After Kafka or the store could not be asked."""
_LOOK_S: Final = 0.05
"""Between two looks whether a position is published."""

_T = TypeVar("_T")


class SubscriberOptions(ConnectionOptions, total=False):
    """Those options of aiokafka's consumers that are a subscriber's to choose."""

    session_timeout_ms: int
    heartbeat_interval_ms: int
    group_instance_id: str


_Portion = tuple[Lane[Session], list[Change[Session]]]


class OrganizationSubscriber(Generic[Session]):
    """Hands out changes, by `async for`, `batches`, `run` or `run_batches`: one of these at a time.

    Args:
        bootstrap_servers: `host:port`, comma-separated.
        store: Where is kept how far it is; the name that the store was given is the subscriber's.
        topics: Their names, where they have a prefix.
        group: Name of the consumer group by which several processes share the partitions; None reads all of them.
        start: Where to begin what the store knows nothing of.
        types: Only events of these types.
        fields: Only changes of these fields.
        where: Only changes for which it is true.
        patience: With handlers that raise.
        on_progress: Called after each step of a load.
        source: Another one than Kafka, for tests.
        options: Passed on to aiokafka's consumers: `security_protocol`, `ssl_context`, `sasl_…`, `session_timeout_ms`.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        store: Store[Session],
        topics: Topics | None = None,
        group: str | None = None,
        start: Start = "state",
        types: Collection[str] | None = None,
        fields: Collection[str] | None = None,
        where: Callable[[Change[Any]], bool] | None = None,
        patience: Patience | None = None,
        on_progress: Callable[[LoadProgress], object] | None = None,
        source: Source | None = None,
        **options: Unpack[SubscriberOptions],
    ) -> None:
        self._source: Source = source or KafkaSource(bootstrap_servers, topics or Topics(), group, options)
        self._lanes = Lanes(self._source, store, start, on_progress)
        self._wanted = Filter(types, fields, where)
        self._patience = patience or Patience()
        self._stopping = asyncio.Event()
        self._turn = asyncio.Event()
        self._polling = asyncio.Lock()
        self._handling: Handling[Session] | None = None
        self._releases: deque[tuple[bytes, asyncio.Future[int]]] = deque()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Connect; tries again until Kafka is there."""
        while True:
            try:
                return await self._source.start(self._lanes.close)
            except SourceUnavailable as error:
                _log.warning("no connection to Kafka yet: %s", error)
                await asyncio.sleep(RETRY_S)

    async def stop(self) -> None:
        """Save what was handled, let the loop end, disconnect. Waits for a transaction that is under way.

        May be called again, and by a handler, but not within a change's transaction.
        """
        self._stopping.set()
        self._next_turn()
        while self._releases:
            self._releases.popleft()[1].set_exception(NotRunning("The subscriber was stopped."))
        await self._lanes.close()
        async with self._polling:  # which ends soon
            await self._source.stop()

    async def __aiter__(self) -> AsyncGenerator[Change[Session]]:
        """The changes that are wanted; each counts as handled when the next one is asked for."""
        async for lane, changes in self._portions():
            for change in changes:
                if lane.lost:
                    break
                if self._wanted.wants(change):
                    if change.key in lane.parked:
                        await lane.park(change, pack(change, BEHIND))
                    else:
                        yield change
                lane.done(change)

    async def batches(self) -> AsyncGenerator[Batch[Session]]:
        """The same in batches: much quicker with `Batch.transaction`."""
        async for lane, changes in self._portions():
            rest = deque(changes)
            while rest and not lane.lost:
                together = [*self._take_together(lane, rest)]
                wanted = [change for change in together if self._wanted.wants(change)]
                if wanted:
                    yield Batch(lane, together, wanted)
                if together and not lane.has_saved(together[-1]):
                    for change in together:
                        lane.done(change)
                if rest and not lane.lost:
                    await lane.park(change := rest.popleft(), pack(change, BEHIND))

    def _take_together(self, lane: Lane[Session], rest: deque[Change[Session]]) -> Generator[Change[Session]]:
        """Those before the next one that has to wait."""
        while rest and not (rest[0].key in lane.parked and self._wanted.wants(rest[0])):
            yield rest.popleft()

    async def run(self, handler: ChangeHandler[Session]) -> None:
        """Call a handler for each change until `stop`.

        Where it raises it is tried again (`Patience`); then that organization is parked, and the rest goes on. What
        the store or Kafka raise is waited out.
        """
        await self._run(Handling(self._wanted, self._patience, self._stopping, one=handler))

    async def run_batches(self, handler: BatchHandler[Session]) -> None:
        """Call a handler for each batch until `stop`, and for single changes of one for which it raises; as `run`."""
        await self._run(Handling(self._wanted, self._patience, self._stopping, many=handler))

    @property
    def parked(self) -> Mapping[UUID, int]:
        """How many changes wait, by organization; of the partitions that this process has."""
        return {UUID(key.decode()): number for key, number in self._lanes.parked.items()}

    async def release(self, org_id: UUID) -> int:
        """Let the handler have what is parked of an organization, in order, between two batches.

        Returns:
            How many changes were handled.

        Raises:
            NotParked: Nothing is, in this process.
            StillParked: The handler raises again; what came before is handled.
            Superseded: Another process has the partition now; ask there.
            NotRunning: Neither `run` nor `run_batches` is under way.
        """
        if self._handling is None:
            raise NotRunning("Only a handler can be given what is parked: use `run` or `run_batches`.")
        released: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._releases.append((str(org_id).encode(), released))
        return await released

    async def ready(self) -> None:
        """Wait until all organizations of this process's partitions were loaded and handled."""
        while not self._lanes.are_loaded:
            await self._wait_for_turn()

    async def reached(self, position: int) -> None:
        """Wait until this process has handled all that concerns it up to a position of the service's journal.

        With the position of a command's result this is read-your-writes: what the command changed is handled then.
        """
        while await self._ask(self._source.find_published) < position:  # noqa: ASYNC110 - others publish
            await asyncio.sleep(_LOOK_S)
        await self._ask(self._source.refresh)
        await self.ready()
        ends = await self._ask(lambda: self._source.find_ends(list(self._source.assigned or ())))
        while not self._lanes.have_handled(ends):
            await self._wait_for_turn()

    async def _run(self, handling: Handling[Session]) -> None:
        self._handling = handling
        try:
            while not self._stopping.is_set():
                try:
                    async for lane, changes in self._portions():
                        await handling.handle(lane, changes)
                except Exception:  # the store or Kafka; nothing is passed over
                    if self._stopping.is_set():
                        raise
                    _log.exception("changes cannot be handled; trying again")
                    await asyncio.sleep(RETRY_S)
        finally:
            self._handling = None

    async def _portions(self) -> AsyncGenerator[_Portion[Session]]:
        """What comes, partition by partition; `finish` follows where it was handled."""
        await self._lanes.close()
        while not self._stopping.is_set():
            try:
                await self._lanes.tend()
            except SourceUnavailable as error:
                _log.warning("Kafka cannot be asked: %s", error)
                await asyncio.sleep(RETRY_S)
            await self._serve_releases()
            for fetched in await self._poll():
                lane = self._lanes.get(fetched.partition)
                if lane is None or self._stopping.is_set() or fetched.from_state != isinstance(lane.life, Loading):
                    continue
                changes = await lane.take(fetched)
                if changes:
                    yield lane, changes
                if not lane.lost:
                    await self._lanes.finish(lane, changed=bool(changes))
            self._next_turn()

    async def _poll(self) -> list[Fetched]:
        async with self._polling:
            return [] if self._stopping.is_set() else await self._source.poll()

    async def _ask(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        while True:
            with suppress(SourceUnavailable):
                return await ask()
            await asyncio.sleep(RETRY_S)

    async def _serve_releases(self) -> None:
        while self._releases and self._handling is not None:
            key, released = self._releases.popleft()
            lane = self._lanes.find(key)
            if released.cancelled():
                continue
            if lane is None:
                released.set_exception(NotParked(UUID(key.decode())))
                continue
            try:
                released.set_result(await self._handling.release(lane, key))
            except Exception as error:  # noqa: BLE001 - raised where it was asked for
                released.set_exception(error)

    def _next_turn(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    async def _wait_for_turn(self) -> None:
        if self._stopping.is_set():
            raise NotRunning("The subscriber was stopped.")
        await self._turn.wait()
