"""Events go out again from the journal: the same records, once each, whatever happens to the run."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError
from org_service.operate import runs
from org_service.operate.changes import Selection
from org_service.operate.operation import PlanMovedError
from org_service.operate.replay_events import ReplayEvents, Where
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from org_service.wire.changes import RUN_HEADER
from tests.support.database import execute
from tests.support.killing import run_killed_at
from tests.support.observed import Record, TopicReader
from tests.support.relaying import RECORDED_AT, applied, changes, journal, org, running, seen

pytestmark = pytest.mark.integration

EVENTS = 500


async def planned(settings: Settings, topic: str, where: Where = "fresh", **selection: Any) -> Operation:
    tool = await ReplayEvents.make(settings, Selection(**selection), topic, where)
    operation, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    return operation


async def records_on(settings: Settings, topic: str) -> list[Record]:
    def read() -> list[Record]:
        reader = TopicReader(settings.kafka.bootstrap_servers)
        try:
            return reader.read((topic,), {})[0][topic]
        finally:
            reader.close()

    return await asyncio.to_thread(read)


def contents(records: list[Record], run: Operation | None = None) -> list[tuple[Any, ...]]:
    """All but offsets and times, by partition in order; `run` is the header that a replay adds."""
    added = () if run is None else ((RUN_HEADER, str(run.id).encode()),)
    found = [(each.partition, each.key, each.value, each.headers) for each in records]
    assert all(headers[len(headers) - len(added) :] == added for *_, headers in found)
    return sorted(((*rest, headers[: len(headers) - len(added)]) for *rest, headers in found), key=lambda each: each[0])


def in_order(records: list[Record]) -> list[Record]:
    """A client takes the partitions as they come."""
    return sorted(records, key=lambda each: (each.topic, each.partition, each.offset))


@pytest.fixture
async def topic(settings: Settings) -> str:
    """The name of a topic for replays, beside events that are published."""
    head = await journal(settings, changes(EVENTS))
    async with running(settings) as relay:
        await relay.published(head)
    return f"{settings.kafka.topic_prefix}again"


async def test_a_fresh_topic_gets_the_same_records_and_nothing_else_gets_any(settings: Settings, topic: str) -> None:
    before = await seen(settings)
    operation = await planned(settings, topic)
    assert (operation.items, operation.state) == (EVENTS, OperationState.PLANNED)
    assert operation.sample[0]["org_id"] == str(org(0))
    done = await runs.run(settings, operation.id)
    assert (done.state, done.done, done.counts) == (OperationState.DONE, EVENTS, {"sent": EVENTS})
    after = await seen(settings)
    assert contents(await records_on(settings, topic), operation) == contents(before.events)
    for topic_before, topic_after in zip(
        (before.events, before.state, before.results), (after.events, after.state, after.results), strict=True
    ):
        assert in_order(topic_after) == in_order(topic_before)


async def test_in_place_subscribers_see_the_same_ids_again_and_the_state_stays(settings: Settings, topic: str) -> None:
    before = await seen(settings)
    with pytest.raises(PreconditionError, match="is no place for a replay"):
        await planned(settings, settings.kafka.topics.state, "named")
    operation = await planned(settings, settings.kafka.topics.events, "in_place")
    await runs.run(settings, operation.id)
    after = await seen(settings)
    again = after.events[:]
    for each in before.events:
        again.remove(each)
    assert contents(again, operation) == contents(before.events)
    assert in_order(after.state) == in_order(before.state)
    assert in_order(after.results) == in_order(before.results)


@pytest.mark.parametrize(
    ("selection", "positions"),
    [
        ({"from_position": 12, "to_position": 14}, [12, 13, 14]),
        ({"org_ids": [org(3)], "to_position": 20}, [4, 11, 18]),
        ({"types": ["org.updated"], "to_position": 2}, [1, 2]),
        ({"types": ["org.deleted"]}, []),
        ({"actors": ["bob"]}, [EVENTS + 1]),
        ({"command_ids": ["00000005-0000-0000-0000-000000000009"]}, [9]),
        ({"from_time": RECORDED_AT + timedelta(seconds=1)}, [EVENTS + 1]),
        ({"to_time": RECORDED_AT}, []),
        ({"org_ids": [org(3)], "actors": ["bob"]}, []),
    ],
)
async def test_what_is_asked_for_goes_out(
    settings: Settings, topic: str, selection: dict[str, Any], positions: list[int]
) -> None:
    later = RECORDED_AT + timedelta(seconds=2)
    await journal(settings, [applied(org(1), 999, actor="bob", recorded_at=later)])
    operation = await planned(settings, topic, **selection)
    assert [each["position"] for each in operation.sample] == positions
    await runs.run(settings, operation.id)
    sent = [int(each.header("ce_position") or 0) for each in await records_on(settings, topic)]
    assert sorted(sent) == positions


@pytest.mark.parametrize("point", ["operate.after_take", "operate.before_publish", "operate.after_publish"])
async def test_a_run_that_was_killed_is_continued_where_kafka_stands(
    settings: Settings, topic: str, point: Point
) -> None:
    operation = await planned(settings, topic)
    await runs.set_rate(settings, operation.id, EVENTS // 3)  # so that there are several steps
    done = await run_killed_at(settings, operation.id, point, 1 if point == "operate.after_take" else 2)
    assert (done.state, done.counts) == (OperationState.DONE, {"sent": EVENTS})
    before = await seen(settings)
    assert contents(await records_on(settings, topic), operation) == contents(before.events)


async def test_a_topic_that_appeared_since_the_plan_stops_the_run(settings: Settings, topic: str) -> None:
    operation = await planned(settings, topic)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, settings.kafka.partitions, 1)])
    await admin.close()
    with pytest.raises(PreconditionError, match="exists already"):
        await runs.run(settings, operation.id)
    assert await records_on(settings, topic) == []
    assert (await runs.find(settings, operation.id)).state == OperationState.PLANNED


async def test_a_topic_of_another_shape_is_no_place(settings: Settings, topic: str) -> None:
    with pytest.raises(PreconditionError, match="does not exist"):
        await planned(settings, topic, "named")
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, settings.kafka.partitions + 1, 1)])
    await admin.close()
    with pytest.raises(PreconditionError, match=f"has {settings.kafka.partitions + 1} partitions"):
        await planned(settings, topic, "named")


async def test_rows_that_changed_since_the_plan_stop_the_run(settings: Settings, topic: str) -> None:
    operation = await planned(settings, topic)
    await execute(settings, "DELETE FROM journal WHERE position = 7")
    with pytest.raises(PlanMovedError, match="items: 500 when it was planned, 499 now"):
        await runs.run(settings, operation.id)
