"""A subscriber over a log that is made by hand: loads, follows, is interrupted, and always ends with the state."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import pytest

from org_events.subscribing import (
    AtPosition,
    Batch,
    Change,
    Kind,
    LoadProgress,
    MemoryStore,
    NotParked,
    OrganizationSubscriber,
    Patience,
    Progress,
    StillParked,
    Superseded,
)
from org_events.subscribing import lanes as lanes_module
from org_events.subscribing import subscriber as subscriber_module
from org_events.topics import partition_for
from tests.support.subscribing import FakeLog, FakeSource, key_of, number_of, org, state

IMPATIENT = Patience(waits_s=(0.0,), longest_wait_s=0.01)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "LOOK_S", 0.01)
    monkeypatch.setattr(lanes_module, "RETRY_S", 0.0)


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


class View:
    """What a subscriber makes of changes: names by organization."""

    def __init__(self) -> None:
        self.names: dict[UUID, str] = {}
        self.seen: list[tuple[int, int, Kind]] = []

    def take(self, change: Change[Any]) -> None:
        self.seen.append((number_of(change), change.version, change.kind))
        if change.after is None:
            self.names.pop(change.org_id, None)
        else:
            self.names[change.org_id] = change.after.name


@asynccontextmanager
async def subscribing(
    source: FakeSource, store: Any, view: View | None = None, **options: Any
) -> AsyncGenerator[OrganizationSubscriber[Any]]:
    """A subscriber that runs, and whose view takes what comes."""

    async def handle(change: Change[Any]) -> None:
        (view or View()).take(change)

    options = {"bootstrap_servers": "", "patience": IMPATIENT} | options
    handler: Callable[[Change[Any]], Awaitable[object]] = options.pop("handler", handle)
    async with asyncio.timeout(10), OrganizationSubscriber(source=source, store=store, **options) as subscriber:
        running = asyncio.create_task(subscriber.run(handler))
        ready = asyncio.create_task(subscriber.ready())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        await ready
        yield subscriber
        await subscriber.stop()
        await running


async def test_a_subscriber_loads_the_state_then_follows(source: FakeSource, store: MemoryStore) -> None:
    view, steps = View(), list[LoadProgress]()
    source.publish(1, 1)
    source.publish(1, 2)
    source.publish(2, 1)
    source.publish(2, 2, event_type="org.deleted")
    async with subscribing(source, store, view, on_progress=steps.append) as subscriber:
        source.publish(1, 3)
        source.publish(3, 1)
        await subscriber.reached(source.published)
    loaded, event = Kind.LOADED, Kind.EVENT
    assert view.seen == [(1, 1, loaded), (1, 2, loaded), (2, 1, loaded), (2, 2, loaded), (1, 3, event), (3, 1, event)]
    assert view.names == {org(1): "1 at 3", org(3): "3 at 1"}
    assert steps[-1] == LoadProgress(0, 0, 8, 8)


@pytest.mark.parametrize("last", ["a marker", "compacted away", "aborted", "nothing"])
async def test_a_load_ends_whatever_is_last(source: FakeSource, store: MemoryStore, last: str) -> None:
    log: FakeLog = source.states[0]
    if last != "nothing":
        log.append(state(1, 1), state(2, 1), marker=last == "a marker")
    if last == "compacted away":
        del log.records[1]
    if last == "aborted":
        log.end = log.stable = log.end + 3
    async with subscribing(source, store):
        assert len(await store.known(None, 0, 1)) == {"nothing": 0, "compacted away": 1}.get(last, 2)


async def test_what_is_committed_later_on_the_state_topic_is_loaded_all_the_same(
    source: FakeSource, store: MemoryStore
) -> None:
    """One transaction, whose commit was written to the partition of the events, and not yet to that of the state."""
    source.publish(1, 1)
    view = View()
    source.states[0] = FakeLog()
    source.states[0].append(state(1, 1), committed=False)

    async def commit_later() -> None:
        await asyncio.sleep(0.05)
        source.states[0].commit()

    committing = asyncio.create_task(commit_later())
    async with subscribing(source, store, view):
        assert view.names == {org(1): "1 at 1"}
    await committing


@pytest.mark.parametrize("what", ["retention", "another topic", "a lost end"])
async def test_a_subscriber_that_missed_something_loads_again_and_finds_what_is_gone(
    source: FakeSource, store: MemoryStore, what: str
) -> None:
    view = View()
    for number in range(4):
        source.publish(number, 1)
    async with subscribing(source, store, view):
        pass
    source.publish(1, 2)
    source.publish(2, 2, event_type="org.deleted")
    source.publish(3, 2, event_type="org.deleted")
    states = source.states[0].records
    source.states[0].records = {at: each for at, each in states.items() if each.key != key_of(3)}  # the tombstone, too
    source.publish(4, 1)
    if what == "retention":
        source.events[0].low = source.events[0].stable
    elif what == "another topic":
        source.topic_id = uuid4()
    else:
        source.cut = {0}
    view.seen.clear()
    async with subscribing(source, store, view):
        source.cut = set()
    assert view.seen == [(1, 2, Kind.LOADED), (2, 2, Kind.LOADED), (4, 1, Kind.LOADED), (3, 1, Kind.GONE)]
    assert view.names == {org(0): "0 at 1", org(1): "1 at 2", org(4): "4 at 1"}
    view.seen.clear()
    async with subscribing(source, store, view) as subscriber:
        source.publish(3, 3, event_type="org.restored", created=True)
        await subscriber.reached(source.published)
    assert view.seen == [(3, 3, Kind.EVENT)], "it goes on from the new mark, and knows what is gone"


async def test_a_subscriber_that_is_behind_while_it_runs_loads_again(source: FakeSource, store: MemoryStore) -> None:
    view = View()
    source.publish(1, 1)
    async with subscribing(source, store, view) as subscriber:
        source.publish(1, 2)
        source.events[0].low = source.events[0].stable
        await subscriber.reached(source.published)
    assert view.seen == [(1, 1, Kind.LOADED), (1, 2, Kind.LOADED)]


async def test_a_gap_is_healed_by_what_comes(source: FakeSource, store: MemoryStore) -> None:
    view = View()
    source.publish(1, 1)
    async with subscribing(source, store, view) as subscriber:
        source.publish(1, 2)
        source.publish(1, 3)
        source.events[0].records = {at: each for at, each in source.events[0].records.items() if at != 2}
        await subscriber.reached(source.published)
    assert view.seen[-1] == (1, 3, Kind.HEALED)
    assert view.names == {org(1): "1 at 3"}


@pytest.mark.parametrize(("start", "versions"), [("now", [4]), ("earliest", [1, 2, 3, 4]), (AtPosition(2), [3, 4])])
async def test_a_subscriber_starts_where_it_is_told(
    source: FakeSource, store: MemoryStore, start: Any, versions: list[int]
) -> None:
    view = View()
    for version in (1, 2, 3):
        source.publish(1, version)
    async with subscribing(source, store, view, start=start) as subscriber:
        source.publish(1, 4)
        await subscriber.reached(source.published)
    assert view.seen == [(1, version, Kind.EVENT) for version in versions]


async def test_a_change_counts_as_handled_when_the_next_one_is_asked_for(
    source: FakeSource, store: MemoryStore
) -> None:
    for version in (1, 2, 3):
        source.publish(1, version)
    options: dict[str, Any] = {"bootstrap_servers": "", "start": "earliest"}
    seen: list[int] = []
    for _ in range(2):
        async with asyncio.timeout(10), OrganizationSubscriber(source=source, store=store, **options) as subscriber:
            async for change in subscriber:
                seen.append(change.version)
                if len(seen) in (2, 4):
                    break
    assert seen == [1, 2, 2, 3]


async def test_a_change_that_was_saved_with_the_subscribers_own_work_never_comes_again(
    source: FakeSource, store: MemoryStore
) -> None:
    for version in (1, 2, 3):
        source.publish(1, version)
    options: dict[str, Any] = {"bootstrap_servers": "", "start": "earliest"}
    seen: list[int] = []
    for _ in range(3):
        async with asyncio.timeout(10), OrganizationSubscriber(source=source, store=store, **options) as subscriber:
            async for change in subscriber:
                async with change.transaction():
                    seen.append(change.version)
                break
    assert seen == [1, 2, 3]


async def test_a_handler_that_raises_parks_its_organization_in_order_and_nothing_else(
    source: FakeSource, store: MemoryStore
) -> None:
    view, broken = View(), {(org(1), 1)}

    async def handle(change: Change[Any]) -> None:
        if (change.org_id, change.version) in broken:
            raise LookupError
        view.take(change)

    async with subscribing(source, store, handler=handle) as subscriber:
        for version in (1, 2, 3):
            source.publish(1, version)
            source.publish(2, version)
        await subscriber.reached(source.published)
        assert [number for number, *_ in view.seen] == [2, 2, 2]
        with pytest.raises(StillParked):
            await subscriber.release(org(1))
    view.seen.clear()
    async with subscribing(source, store, handler=handle) as subscriber:
        assert subscriber.parked == {org(1): 3}
        broken.clear()
        assert await subscriber.release(org(1)) == 3
        source.publish(1, 4)
        await subscriber.reached(source.published)
        assert [version for _, version, _ in view.seen] == [1, 2, 3, 4]
        assert subscriber.parked == {}
        with pytest.raises(NotParked):
            await subscriber.release(org(1))


async def test_a_handler_that_fails_for_everybody_parks_few(source: FakeSource, store: MemoryStore) -> None:
    handled, broken = list[int](), True

    async def handle(change: Change[Any]) -> None:
        if broken:
            raise LookupError
        handled.append(number_of(change))

    patience = IMPATIENT._replace(parked_organizations_max=2)
    async with subscribing(source, store, handler=handle, patience=patience) as subscriber:
        for number in range(5):
            source.publish(number, 1)
        while len(subscriber.parked) < 2:
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        assert len(subscriber.parked) == 2
        broken = False
        await subscriber.reached(source.published)
    assert handled == [2, 3, 4]


async def test_a_batch_that_fails_is_handled_one_by_one(source: FakeSource, store: MemoryStore) -> None:
    batches: list[list[int]] = []

    async def handle(batch: Batch[Any]) -> None:
        numbers = [number_of(change) for change in batch]
        async with batch.transaction():
            if 2 in numbers:
                raise LookupError
            batches.append(numbers)

    for number in range(4):
        source.publish(number, 1)
    options: dict[str, Any] = {"bootstrap_servers": "", "patience": IMPATIENT}
    async with asyncio.timeout(10), OrganizationSubscriber(source=source, store=store, **options) as subscriber:
        running = asyncio.create_task(subscriber.run_batches(handle))
        await subscriber.ready()
        source.publish(5, 1)
        await subscriber.reached(source.published)
        assert subscriber.parked == {org(2): 1}
        await subscriber.stop()
        await running
    assert batches == [[0], [1], [3], [5]]
    assert len(await store.known(None, 0, 1)) == 5


async def test_what_waits_is_not_overtaken_by_batches(source: FakeSource, store: MemoryStore) -> None:
    async def fail(change: Change[Any]) -> None:
        raise LookupError

    async with subscribing(source, store, handler=fail, types={"org.created"}) as subscriber:
        source.publish(2, 1, event_type="org.created")
        await subscriber.reached(source.published)
    for number, version in ((1, 1), (2, 2), (3, 1), (2, 3), (1, 2)):
        source.publish(number, version)
    seen: list[list[tuple[int, int]]] = []
    async with (
        asyncio.timeout(10),
        OrganizationSubscriber(bootstrap_servers="", source=source, store=store) as subscriber,
    ):
        async for batch in subscriber.batches():
            seen.append([(number_of(change), change.version) for change in batch])
            if seen[-1][-1] == (1, 2):
                async with batch.transaction():
                    break
    assert seen == [[(1, 1)], [(3, 1)], [(1, 2)]]
    claim = await store.claim(0, 1)
    assert [each.version for each in claim.parked] == [1, 2, 3]


async def test_what_a_former_owner_of_a_partition_does_is_taken_back(source: FakeSource, store: MemoryStore) -> None:
    source.publish(1, 1)
    options: dict[str, Any] = {"bootstrap_servers": "", "start": "earliest"}
    done: list[str] = []
    async with asyncio.timeout(10), OrganizationSubscriber(source=source, store=store, **options) as subscriber:
        async for change in subscriber:
            if not done:
                await store.claim(0, 1)  # another process has it now
                done.append("taken")
                with pytest.raises(Superseded):
                    async with change.transaction():
                        pass
            else:
                async with change.transaction():
                    done.append("handled")
                break
    assert done == ["taken", "handled"]


async def test_a_rebalance_waits_for_a_transaction_and_saves_what_was_handled(
    source: FakeSource, store: MemoryStore
) -> None:
    for version in (1, 2, 3):
        source.publish(1, version)
    options: dict[str, Any] = {"bootstrap_servers": "", "start": "earliest"}
    seen, dealing = list[int](), asyncio.create_task(asyncio.sleep(0))
    async with asyncio.timeout(10), OrganizationSubscriber(source=source, store=store, **options) as subscriber:
        async for change in subscriber:
            seen.append(change.version)
            async with change.transaction():
                if len(seen) == 2:
                    dealing = asyncio.create_task(source.deal([0]))
                    await asyncio.sleep(0.02)
                    assert not dealing.done()
            if len(seen) == 2:
                await dealing
            if len(seen) == 3:
                break
    assert seen == [1, 2, 3]


async def test_a_commit_whose_answer_was_lost_is_not_done_twice(source: FakeSource) -> None:
    class LosingStore(MemoryStore):
        """Commits once and says that it failed."""

        lost = False

        @asynccontextmanager
        async def transaction(self) -> AsyncGenerator[list[Progress]]:
            async with super().transaction() as session:
                yield session
            if session and session[0].versions and not self.lost:
                self.lost = True
                raise ConnectionError

    store, view = LosingStore(), View()

    async def handle(change: Change[Any]) -> None:
        async with change.transaction():
            view.take(change)

    source.publish(1, 1)
    source.publish(1, 2)
    with suppress(ConnectionError):
        async with subscribing(source, store, handler=handle, start="earliest") as subscriber:
            await subscriber.reached(source.published)
    assert store.lost
    assert (await store.known(None, 0, 1)).popitem()[1] == 2
    assert [version for _, version, _ in view.seen if version == 2] == [2]


async def test_a_new_partition_is_read_behind_its_parent(store: MemoryStore) -> None:
    source, view = FakeSource(1), View()
    moved = [number for number in range(20) if partition_for(key_of(number), 2)]
    for number in range(20):
        source.publish(number, 1)
    async with subscribing(source, store, view):
        pass
    for number in moved:
        source.publish(number, 2)
    source.partitions = source.settled_partitions = 2
    source.ours = [1]
    for number in moved:
        source.publish(number, 3)
    view.seen.clear()
    async with subscribing(source, store, view):
        await asyncio.sleep(0.05)
        assert view.seen == []
        await source.deal([0, 1])
        while len(view.seen) < 2 * len(moved):
            await asyncio.sleep(0.001)
    assert [seen for seen in view.seen if seen[0] == moved[0]] == [(moved[0], 2, Kind.EVENT), (moved[0], 3, Kind.EVENT)]


async def test_what_growth_left_behind_is_not_handed_out(store: MemoryStore) -> None:
    source, view = FakeSource(2), View()
    moved = next(number for number in range(20) if partition_for(key_of(number), 2) == 1)
    source.states[0].append(state(moved, 1))
    source.states[1].append(state(moved, 3))
    async with subscribing(source, store, view):
        assert view.seen == [(moved, 3, Kind.LOADED)]


async def test_an_outage_of_kafka_is_waited_out(
    source: FakeSource, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber_module, "RETRY_S", 0.0)
    view = View()
    source.publish(1, 1)
    async with subscribing(source, store, view) as subscriber:
        source.away = True
        await asyncio.sleep(0.05)
        source.publish(1, 2)
        source.away = False
        await subscriber.reached(source.published)
    assert view.names == {org(1): "1 at 2"}
