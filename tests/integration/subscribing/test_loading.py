"""First loads from a real broker: their ends, and what happens on both topics meanwhile."""

import asyncio

import pytest

from org_events import Topics
from org_events.subscribing import AtPosition, Kind, lanes
from tests.integration.subscribing.conftest import PARTITIONS
from tests.integration.subscribing.following import View, subscribing
from tests.support import log_faults
from tests.support.subscribing import event, state
from tests.support.subscribing_feed import Feed, partitioned
from tests.support.waiting import until

pytestmark = pytest.mark.integration


async def test_a_load_ends_whatever_is_last_and_following_begins_where_it_must(
    bootstrap_servers: str, topics: Topics, feed: Feed
) -> None:
    """Partition 0 is empty, 1 ends with a marker, 2 with records that were aborted, 3 has lost all of its records."""
    of = [partitioned(number, PARTITIONS, 3) for number in range(PARTITIONS)]
    await asyncio.to_thread(feed.publish, *of[1], *of[2], *of[3])
    await asyncio.to_thread(feed.abort, *of[2])
    await asyncio.to_thread(log_faults.configure, bootstrap_servers, topics.state, {"cleanup.policy": "delete"})
    ends = await asyncio.to_thread(log_faults.ends, bootstrap_servers, topics.state, [3])
    await asyncio.to_thread(log_faults.delete_records, bootstrap_servers, topics.state, ends)
    view = View()
    async with subscribing(bootstrap_servers, topics, view) as subscriber:
        await subscriber.ready()
        assert sorted(view.seen) == sorted((number, 1, Kind.LOADED) for number in (*of[1], *of[2]))
        await asyncio.to_thread(feed.publish, of[0][0], of[1][0], of[2][0])
        await asyncio.to_thread(feed.publish, of[3][0])
        await subscriber.reached(feed.position)
    assert sorted(view.seen[6:]) == sorted(
        [
            (of[0][0], 1, Kind.EVENT),
            (of[1][0], 2, Kind.EVENT),
            (of[2][0], 2, Kind.EVENT),
            (of[3][0], 2, Kind.HEALED),
        ]
    )


async def test_a_change_whose_commit_reaches_the_state_topic_late_is_loaded_all_the_same(
    bootstrap_servers: str, topics: Topics
) -> None:
    """Kafka writes the commit of a transaction to one partition after the other; here it has come to the events."""
    [number] = partitioned(1, PARTITIONS, 1)
    on_events = await asyncio.to_thread(Feed, bootstrap_servers, topics, "events")
    on_state = await asyncio.to_thread(Feed, bootstrap_servers, topics, "state")
    await asyncio.to_thread(on_state.open, topics.state, [state(number, 1)])
    await asyncio.to_thread(on_events.open, topics.events, [event(number, 1)])
    await asyncio.to_thread(on_events.commit)
    view = View()
    async with subscribing(bootstrap_servers, topics, view) as subscriber:
        loaded = asyncio.create_task(subscriber.ready())
        done, _ = await asyncio.wait({loaded}, timeout=1.0)
        assert not done, "it ends before what is open"
        await asyncio.to_thread(on_state.commit)
        await loaded
    assert view.seen == [(number, 1, Kind.LOADED)]


async def test_a_change_that_is_open_when_a_load_begins_is_followed(
    bootstrap_servers: str, topics: Topics, feed: Feed
) -> None:
    [number] = partitioned(1, PARTITIONS, 1)
    await asyncio.to_thread(feed.publish, number)
    open_one = await asyncio.to_thread(Feed, bootstrap_servers, topics, "open")
    await asyncio.to_thread(open_one.open, topics.events, [event(number, 2)])
    view = View()
    async with subscribing(bootstrap_servers, topics, view) as subscriber:
        await subscriber.ready()
        await asyncio.to_thread(open_one.commit)
        await subscriber.reached(feed.position)
    assert view.seen == [(number, 1, Kind.LOADED), (number, 2, Kind.EVENT)]


async def test_a_topic_that_was_created_again_is_loaded_and_what_is_gone_is_computed(
    bootstrap_servers: str, topics: Topics, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "LOOK_S", 0.1)
    monkeypatch.setattr(lanes, "RETRY_S", 0.1)
    view, [kept, lost] = View(), partitioned(1, PARTITIONS, 2)
    await asyncio.to_thread(feed.publish, kept, lost)
    async with subscribing(bootstrap_servers, topics, view) as subscriber:
        await subscriber.ready()
        for topic in (topics.state, topics.events):
            await asyncio.to_thread(log_faults.recreate_topic, bootstrap_servers, topic, PARTITIONS, {})
        again = await asyncio.to_thread(Feed, bootstrap_servers, topics, "again")
        again.versions[kept], again.present[kept], again.position = 1, "", feed.position
        await asyncio.to_thread(again.publish, kept)
        await until(lambda: view.names, again.present)
    assert (lost, 1, Kind.GONE) in view.seen


async def test_a_subscriber_starts_behind_a_position(bootstrap_servers: str, topics: Topics, feed: Feed) -> None:
    numbers = [number for partition in range(PARTITIONS) for number in partitioned(partition, PARTITIONS, 1)]
    for _ in range(6):
        await asyncio.to_thread(feed.publish, *numbers)
    view = View()
    behind = 3 * len(numbers) + 2
    async with subscribing(bootstrap_servers, topics, view, start=AtPosition(behind)) as subscriber:
        await subscriber.reached(feed.position)
    positions = {(number, version): number_at for number_at, number, version in _positions(numbers, 6)}
    assert sorted(positions[number, version] for number, version, _ in view.seen) == [
        *range(behind + 1, feed.position + 1)
    ]


def _positions(numbers: list[int], rounds: int) -> list[tuple[int, int, int]]:
    return [
        (at * len(numbers) + place + 1, number, at + 1) for at in range(rounds) for place, number in enumerate(numbers)
    ]
