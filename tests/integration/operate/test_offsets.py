"""Consumer groups on our topics: where they stand, when they lose records, and where they shall continue."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import REGISTRY

from org_events.commands import CreateOrganization
from org_service.kafka.offsets import read_committed
from org_service.operate import groups, positions, runs
from org_service.operate.offsets import ResetOffsets, Target
from org_service.operate.operator import Operator
from org_service.operate.watching import show
from org_service.settings import Settings
from tests.integration.operate.parking import apply, failing_for, record
from tests.support import log_faults
from tests.support.killing import kill_at
from tests.support.operating import Orgs
from tests.support.probing import Killed, probing
from tests.support.relaying import changes, journal, org, running
from tests.support.waiting import until

pytestmark = pytest.mark.integration

EVENTS = 600


@asynccontextmanager
async def member(settings: Settings, group: str, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def commit(settings: Settings, group: str, topic: str, offsets: dict[int, int]) -> None:
    async with member(settings, group) as consumer:
        at = {TopicPartition(topic, partition): offset for partition, offset in offsets.items()}
        consumer.assign(list(at))
        await consumer.commit({each: OffsetAndMetadata(offset, "") for each, offset in at.items()})


async def committed(settings: Settings, group: str, topic: str) -> list[int]:
    at = [TopicPartition(topic, partition) for partition in range(settings.kafka.partitions)]
    found = await read_committed(settings.kafka, group, at, or_none=True)
    return [found[each].offset for each in at]


@pytest.fixture
async def group(settings: Settings) -> str:
    """Billing, which has read nothing of the events that were published."""
    head = await journal(settings, changes(EVENTS))
    async with running(settings) as relay:
        await relay.published(head)
    name = f"{settings.kafka.topic_prefix}billing"
    await commit(settings, name, settings.kafka.topics.events, dict.fromkeys(range(settings.kafka.partitions), 0))
    return name


async def read_on(settings: Settings, group: str, topic: str) -> list[int]:
    """The positions that a group reads when it continues, until nothing is left."""
    found: list[int] = []
    async with member(settings, group, topic) as consumer:
        for _ in range(100):
            batches = await consumer.getmany(timeout_ms=100)
            found += [
                int(value)
                for batch in batches.values()
                for each in batch
                for name, value in each.headers
                if name == "ce_position"
            ]
            at = consumer.assignment()
            ends = await consumer.end_offsets(at) if at else {}
            if at and all([await consumer.position(each) >= ends[each] for each in at]):
                return sorted(found)
    raise AssertionError("not at the end")


async def test_a_group_continues_behind_a_position_exactly(
    orgs: Orgs, settings: Settings, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(positions, "LINEAR_OFFSETS_MAX", 8)
    events = settings.kafka.topics.events
    reset = ("offsets", "reset", group, "--execute", "--reason", "a test", "--json", "--to-position")
    for position in (0, 317, EVENTS):
        ran = (await orgs(*reset, str(position))).json
        assert (ran["state"], ran["kind"]) == ("done", "reset offsets")
        assert await read_on(settings, group, events) == list(range(position + 1, EVENTS + 1))
    # Sent again by a run, older events lie behind newer ones.
    await orgs("replay", "events", "--to-position", "200", "--in-place", "--execute", "--reason", "a test")
    await orgs(*reset, "317")
    assert set(range(318, EVENTS + 1)) <= set(found := await read_on(settings, group, events))
    assert set(found) == {*range(318, EVENTS + 1), *range(1, 201)}
    for topic in (settings.kafka.topics.results, settings.kafka.topics.state):
        await orgs(*reset, "317", "--topic", topic)
        assert set(range(318, EVENTS + 1)) <= set(await read_on(settings, group, topic))


async def test_a_group_is_set_to_the_ends_a_mark_a_time_and_a_file(
    orgs: Orgs, settings: Settings, group: str, tmp_path: Path
) -> None:
    events = settings.kafka.topics.events
    reset = ("offsets", "reset", group, "--execute", "--reason", "a test")
    await orgs("mark", "before")
    before_s = time.time() + 1
    await asyncio.sleep(max(0, before_s - time.time()))  # the option takes whole seconds
    head = await journal(settings, changes(60, after=EVENTS))
    async with running(settings) as relay:
        await relay.published(head)
    await orgs(*reset, "--to-mark", "before")
    assert await read_on(settings, group, events) == list(range(EVENTS + 1, head + 1))
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(before_s))
    await orgs(*reset, "--to-datetime", whole)
    assert await read_on(settings, group, events) == list(range(EVENTS + 1, head + 1))
    await orgs(*reset, "--to-latest")
    latest = await committed(settings, group, events)
    assert await read_on(settings, group, events) == []
    exported = (await orgs("offsets", "show", group, "--export")).stdout
    assert exported.splitlines() == [f"{events},{n},{offset}" for n, offset in enumerate(latest)]
    await orgs(*reset, "--to-earliest")
    assert await committed(settings, group, events) == [0] * len(latest)
    file = tmp_path / "billing.csv"
    file.write_text(exported)
    await orgs(*reset, "--from-file", str(file))
    assert await committed(settings, group, events) == latest
    file.write_text(f"{events},0,1000000\n")
    assert "there is no offset 1000000" in (await orgs(*reset, "--from-file", str(file), code=1)).stderr
    file.write_text("elsewhere,0,0\n")
    assert "none of our topics" in (await orgs(*reset, "--from-file", str(file), code=1)).stderr
    assert "say where to, once" in (await orgs(*reset, "--to-latest", "--to-earliest", code=2)).stderr
    commands = ("--topic", settings.kafka.topics.commands)
    assert "knows no positions" in (await orgs(*reset, "--to-position", "1", *commands, code=1)).stderr
    assert "has committed nothing" in (await orgs("offsets", "reset", "nobody", "--to-latest", code=1)).stderr


async def test_nothing_is_set_while_somebody_is_in_the_group(orgs: Orgs, settings: Settings, group: str) -> None:
    events = settings.kafka.topics.events
    planned = (await orgs("offsets", "reset", group, "--to-latest", "--json")).json["id"]
    async with member(settings, group, events) as consumer:
        await consumer.getmany(timeout_ms=2_000)
        refused = await orgs("offsets", "reset", group, "--to-latest", code=1)
        assert "consumers are in the group" in refused.stderr
        refused = await orgs("run", planned, "--reason", "a test", code=1)
        assert "consumers are in the group" in refused.stderr
        assert await committed(settings, group, events) == [0] * settings.kafka.partitions
    await commit(settings, group, events, {0: 1})
    refused = await orgs("run", planned, "--reason", "a test", code=1)
    assert "what the plan stands on has changed" in refused.stderr
    assert (await committed(settings, group, events))[0] == 1


async def test_somebody_who_joins_between_look_and_commit_is_seen_by_the_coordinator(
    settings: Settings, group: str
) -> None:
    events = settings.kafka.topics.events
    tool = await ResetOffsets.make(settings, group, Target("latest"), (), may_skip_commands=False)
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    joined: list[AIOKafkaConsumer] = []

    async def join() -> None:
        consumer = AIOKafkaConsumer(
            events, bootstrap_servers=settings.kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        await consumer.getmany(timeout_ms=2_000)
        joined.append(consumer)

    with probing("operate.before_commit", join):
        ended = await runs.run(settings, planned.id)
    await joined[0].stop()
    assert ended.state == "failed"
    assert "somebody has joined the group" in (ended.error or "")
    assert await committed(settings, group, events) == [0] * settings.kafka.partitions


@pytest.mark.parametrize("point", ["operate.after_take", "operate.before_commit", "operate.after_commit"])
async def test_a_run_that_was_killed_is_resumed(settings: Settings, group: str, point: str) -> None:
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    tool = await ResetOffsets.make(impatient, group, Target("latest"), (), may_skip_commands=False)
    planned, _ = await runs.keep_plan(impatient, tool, requested_by="alice", reason="a test")
    with probing(point, kill_at(1)), pytest.raises(Killed):  # pyright: ignore[reportArgumentType] - one of the points
        await runs.run(impatient, planned.id)
    ended = await resumed(impatient, planned.id)
    assert (ended.state, ended.counts) == ("done", {"set": settings.kafka.partitions})
    assert 0 not in await committed(settings, group, settings.kafka.topics.events)


async def test_a_run_that_is_resumed_takes_nobody_back_who_has_moved_on(settings: Settings, group: str) -> None:
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    tool = await ResetOffsets.make(impatient, group, Target("latest"), (), may_skip_commands=False)
    planned, _ = await runs.keep_plan(impatient, tool, requested_by="alice", reason="a test")
    with probing("operate.before_commit", kill_at(1)), pytest.raises(Killed):
        await runs.run(impatient, planned.id)
    await commit(settings, group, settings.kafka.topics.events, {1: 2})
    ended = await resumed(impatient, planned.id)
    assert ended.state == "failed"
    assert "has moved on" in (ended.error or "")
    assert (await committed(settings, group, settings.kafka.topics.events))[:2] == [0, 2]


async def resumed(settings: Settings, operation_id: UUID) -> runs.Operation:
    while True:
        try:
            return await runs.run(settings, operation_id)
        except runs.NotRunnableError:  # until the lease of whoever was killed lapses
            await asyncio.sleep(0.2)


async def test_the_workers_group_skips_no_command_without_the_word(orgs: Orgs, settings: Settings) -> None:
    commands = settings.kafka.topics.commands
    worker = f"{settings.kafka.topic_prefix}{settings.worker.group_id}"
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for n in range(3):
            await producer.send_and_wait(commands, b"{}", key=b"key", partition=n)
    await commit(settings, worker, commands, {0: 1, 1: 0, 2: 0})
    reset = ("offsets", "reset", worker, "--execute", "--reason", "a test")
    await orgs(*reset, "--to-earliest")  # what was decided is not decided again (guarantee 1)
    refused = await orgs(*reset, "--to-latest", code=1)
    assert "3 offsets" in refused.stderr
    assert "--may-skip-commands" in refused.stderr
    assert await committed(settings, worker, commands) == [0, 0, 0]
    await orgs(*reset, "--to-latest", "--may-skip-commands")
    assert await committed(settings, worker, commands) == [1, 1, 1]


async def test_time_to_loss_is_that_of_the_first_record_that_was_not_read(
    orgs: Orgs, settings: Settings, group: str
) -> None:
    events, kafka = settings.kafka.topics.events, settings.kafka
    await asyncio.to_thread(log_faults.configure, kafka.bootstrap_servers, events, {"retention.ms": str(3_600_000)})
    await asyncio.to_thread(log_faults.delete_records, kafka.bootstrap_servers, events, {1: 5})
    (found,) = (await groups.look(kafka)).groups
    assert found.name == group
    assert 3_500 < (found.loss_s or 0) <= 3_600
    assert found.lost == 5
    assert found.lag > EVENTS - 10
    await orgs("offsets", "reset", group, "--to-latest", "--execute", "--reason", "a test")
    (found,) = (await groups.look(kafka)).groups
    assert (found.lag, found.lag_s, found.loss_s) == (0, 0, None)
    # Behind the last record there is the mark of its transaction, which nobody ever reads.
    at = await committed(settings, group, events)
    await commit(settings, group, events, {n: offset - 1 for n, offset in enumerate(at)})
    (found,) = (await groups.look(kafka)).groups
    assert (found.lag, found.loss_s) == (0, None)
    listed = await orgs("offsets", "list")
    assert group in listed.stdout
    await asyncio.to_thread(log_faults.configure, kafka.bootstrap_servers, events, {"retention.ms": "-1"})
    await orgs("offsets", "reset", group, "--to-earliest", "--execute", "--reason", "a test")
    (document,) = (await orgs("offsets", "list", "--json")).json_lines
    assert document["loss_s"] is None
    assert document["lag"] > EVENTS - 10


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_the_role_operate_shows_time_to_loss(settings: Settings, group: str) -> None:
    events, commands, kafka = settings.kafka.topics.events, settings.kafka.topics.commands, settings.kafka
    with failing_for([org(9)]):
        await apply(settings, record(settings, CreateOrganization(org_id=org(9), name="Nine")))
    operator, stop = Operator(settings), asyncio.Event()
    running_role = asyncio.create_task(operator.run(stop))
    await until(lambda: asyncio.sleep(0, sample("orgs_group_loss_seconds", group=group, topic=events) is not None))
    assert 89 * 86_400 < (sample("orgs_group_loss_seconds", group=group, topic=events) or 0) <= 90 * 86_400
    assert 0 < (sample("orgs_group_lag_seconds", group=group, topic=events) or 0) < 120
    assert 13 * 86_400 < (sample("orgs_parked_loss_seconds", topic=commands) or 0) <= 14 * 86_400
    stop.set()
    await running_role
    at = await groups.look(kafka)
    show(at._replace(groups=[]), ())
    assert sample("orgs_group_loss_seconds", group=group, topic=events) is None
    assert sample("orgs_parked_loss_seconds", topic=commands) is None


async def test_several_groups_are_seen_at_once(settings: Settings, group: str) -> None:
    events = settings.kafka.topics.events
    names = [group, f"{group}-2", f"{group}-3"]
    for number, name in enumerate(names[1:], 1):
        await commit(settings, name, events, {0: number, 1: number})
    found = {each.name: each for each in (await groups.look(settings.kafka)).groups}
    assert found.keys() == {*names}
    assert {each.group.state for each in found.values() if each.group is not None} == {"Empty"}
    assert [found[name].lag for name in names] == [found[group].lag - each for each in (0, 2, 4)]
