import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from confluent_kafka.admin import AdminClient, NewTopic
from structlog.testing import capture_logs

from org_events.topics import Topics
from org_service import runtime
from org_service.errors import StopError
from org_service.kafka import topics
from org_service.kafka.connection import admin
from org_service.settings import Settings
from org_service.store import migrate
from tests.support import log_faults
from tests.support.operating import Orgs
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def none_there(settings: Settings) -> AsyncIterator[Settings]:
    """A prefix under which there is no topic yet."""
    kafka = settings.kafka.model_copy(update={"topic_prefix": f"{settings.kafka.topic_prefix}new."})
    fresh = settings.model_copy(update={"kafka": kafka})
    yield fresh
    left = [f"{kafka.topic_prefix}{name}" for name in await names(fresh)]
    if left:
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        for done in admin.delete_topics(left).values():
            await asyncio.to_thread(done.result, 20)


@pytest.fixture
def new_orgs(orgs: Orgs, none_there: Settings) -> Orgs:
    """The command line for that prefix."""
    return Orgs(none_there)


async def create(settings: Settings, name: str, partitions: int = 3, **config: str) -> None:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    named = {key.replace("_", "."): value for key, value in config.items()}
    for done in admin.create_topics([NewTopic(name, num_partitions=partitions, config=named)]).values():
        await asyncio.to_thread(done.result, 20)
    short = name.removeprefix(settings.kafka.topic_prefix)
    while short not in await names(settings):  # the controller made it; brokers learn of it a little later
        pass


async def names(settings: Settings) -> set[str]:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    found = (await asyncio.to_thread(admin.list_topics)).topics
    return {
        name.removeprefix(settings.kafka.topic_prefix) for name in found if name.startswith(settings.kafka.topic_prefix)
    }


ALL = {
    "orgs.commands", "orgs.results", "orgs.events", "orgs.state", "orgs.relay",
    "orgs.memberships", "orgs.partnerships", "orgs.staff",
}  # fmt: skip


async def test_missing_topics_are_created_as_the_contract_says(none_there: Settings, new_orgs: Orgs) -> None:
    dry = await new_orgs("topics", "apply", "--dry-run")
    assert "dry run: 8 to create" in dry.stderr
    assert await names(none_there) == set()
    first = await new_orgs("topics", "apply")
    assert "8 created, 0 already exist" in first.stderr
    assert await names(none_there) == ALL
    again = await new_orgs("topics", "apply")
    assert "0 created, 8 already exist" in again.stderr
    assert again.stdout.count("as specified") == 8
    for plan in await topics.plan(none_there.kafka):
        assert (plan.exists, plan.differences) == (True, [])


async def test_only_what_is_missing_is_created(none_there: Settings, new_orgs: Orgs) -> None:
    commands = none_there.kafka.topics.commands
    await create(none_there, commands, message_timestamp_type="LogAppendTime", retention_ms=str(14 * 86_400_000))
    assert "7 created, 1 already exist" in (await new_orgs("topics", "apply")).stderr


@pytest.mark.parametrize(
    ("topic", "partitions", "config", "said"),
    [
        ("orgs.commands", 3, {"cleanup_policy": "delete"}, "message.timestamp.type=LogAppendTime"),
        ("orgs.state", 3, {"cleanup_policy": "delete"}, "cleanup.policy=compact"),
        ("orgs.events", 3, {"cleanup_policy": "compact"}, "cleanup.policy=delete"),
        ("orgs.results", 5, {}, "ORGS_KAFKA__PARTITIONS=5"),
        ("orgs.memberships", 3, {"cleanup_policy": "delete"}, "cleanup.policy=compact"),
        ("orgs.relay", 2, {"cleanup_policy": "compact"}, "has 2 partitions"),
        ("orgs.results", 3, {"max_message_bytes": "200000"}, "max.message.bytes=1048588"),
    ],
)
async def test_a_topic_that_would_break_the_guarantees_is_rejected_before_anything_is_created(
    none_there: Settings, new_orgs: Orgs, topic: str, partitions: int, config: dict[str, str], said: str
) -> None:
    await create(none_there, f"{none_there.kafka.topic_prefix}{topic}", partitions, **config)
    rejected = await new_orgs("topics", "apply", code=1)
    assert said in rejected.stderr
    assert "nothing was created" in rejected.stderr
    assert await names(none_there) == {topic}


async def test_partitions_added_by_hand_are_rejected_with_advice(settings: Settings, orgs: Orgs) -> None:
    """The number to set is no way out where topics differ: the next one would ask for the other number."""
    kafka, names = settings.kafka, [spec.name for spec in settings.kafka.topics.specs() if spec.partitions != 1]
    await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, kafka.topics.commands, 6)
    said = " ".join((await orgs("topics", "apply", code=1)).stderr.split())
    assert "has 6 partitions, not 3. Do not add partitions to other topics, and do not change" in said
    assert "ORGS_KAFKA__PARTITIONS=" not in said
    assert "ORGS_KAFKA__TOPIC_PREFIX" in said
    for name in set(names) - {kafka.topics.commands}:
        await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, name, 6)
    said = " ".join((await orgs("topics", "apply", code=1)).stderr.split())
    assert "If all topics were created with 6, set ORGS_KAFKA__PARTITIONS=6. If partitions were added to them" in said


async def test_settings_that_may_lose_records_are_reported(none_there: Settings) -> None:
    """Topics of earlier releases have Kafka's defaults, and this release must start on them."""
    risky: dict[str, Any] = {
        "unclean_leader_election_enable": "true",
        "retention_bytes": "1000",
        "retention_ms": str(3 * 86_400_000),
    }
    await create(none_there, none_there.kafka.topics.results, **risky)
    await create(none_there, none_there.kafka.topics.state, cleanup_policy="compact")
    await create(none_there, none_there.kafka.topics.staff, cleanup_policy="compact", delete_retention_ms="900000000")
    await create(
        none_there, none_there.kafka.topics.relay, 1, cleanup_policy="compact", delete_retention_ms="604800000",
        compression_type="zstd"
    )  # fmt: skip
    found = [each[:4] for plan in await topics.plan(none_there.kafka) for each in plan.differences]
    assert sorted(found) == [
        ("compression.type", "producer", "zstd", False),
        ("delete.retention.ms", "604800000", "86400000", False),
        *[("max.compaction.lag.ms", "86400000", "9223372036854775807", False)] * 3,
        ("retention.bytes", "-1", "1000", False),
        *[("segment.ms", "86400000", "604800000", False)] * 4,
        ("unclean.leader.election.enable", "false", "true", False),
    ]


async def test_harmful_topic_settings_end_a_running_process_with_advice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state topic that forgets, say; everything would go on saying that it is ready. Partitions are waited for."""
    monkeypatch.setattr(runtime, "TOPICS_LOOK_S", 0.1)
    stop, asked = asyncio.Event(), asyncio.Event()

    class Idle:
        async def run(self, stop: asyncio.Event) -> None:
            await stop.wait()
            asked.set()

    running = asyncio.create_task(runtime.run_parts(cast("Any", {"worker": Idle()}), stop, settings))
    await asyncio.sleep(0)
    kafka = settings.kafka
    with capture_logs() as lines:
        await asyncio.to_thread(log_faults.add_partitions, kafka.bootstrap_servers, kafka.topics.events, 6)
        await until(lambda: any("has 6 partitions, not 3" in line.get("advice", "") for line in lines))
    assert not running.done()
    change = {"cleanup.policy": "delete"}
    await asyncio.to_thread(log_faults.configure, kafka.bootstrap_servers, kafka.topics.state, change)
    async with asyncio.timeout(30):
        with pytest.raises(StopError, match=r"has cleanup\.policy=delete"):
            await running
    assert asked.is_set()


async def test_a_custom_retention_is_only_reported(settings: Settings, orgs: Orgs) -> None:
    answer = await orgs("topics", "apply", ORGS_KAFKA__EVENTS_RETENTION_MS="1000")
    assert "retention.ms is 7776000000, not 1000" in " ".join(answer.stdout.split())


async def test_migrate_says_where_the_database_stands(orgs: Orgs) -> None:
    answer = await orgs("migrate")
    assert answer.stdout.splitlines()[-1] == f"the database is at version {migrate.head()}"


async def test_a_database_that_was_never_migrated_says_what_to_do(orgs: Orgs, server_url: str) -> None:
    answer = await orgs("show", "Acme", code=1, ORGS_DATABASE__URL=server_url)
    assert "run `orgs migrate`" in answer.stderr
    assert "Traceback" not in answer.stderr


async def test_records_can_be_sent_as_soon_as_topics_are_created(
    none_there: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Brokers name a partition's leader some milliseconds before that takes records; a producer logs each refusal."""
    specs = [each.spec for each in await topics.plan(none_there.kafka)]
    await topics.create(none_there.kafka, specs)
    async with AIOKafkaProducer(**none_there.kafka.connection()) as producer:
        for spec in specs:
            sent = [await producer.send(spec.name, b"{}", b"key", number) for number in range(spec.partitions)]
            await asyncio.gather(*sent)
    assert caplog.messages == []


@pytest.mark.parametrize("copies", [-1, 1])
async def test_the_number_of_copies_may_be_the_operators_or_the_brokers_own(none_there: Settings, copies: int) -> None:
    kafka = none_there.kafka.model_copy(update={"replication_factor": copies})
    specs = [each.spec for each in await topics.plan(kafka)]
    await topics.create(kafka, specs)
    assert all(each.exists for each in await topics.plan(kafka))


async def test_more_room_for_a_batch_than_needed_is_fine(none_there: Settings) -> None:
    results = none_there.kafka.topics.results
    await create(
        none_there, results, max_message_bytes="2000000", retention_ms=str(3 * 86_400_000), segment_ms="600000"
    )
    assert [each.differences for each in await topics.plan(none_there.kafka) if each.exists] == [[]]


@pytest.mark.parametrize(
    ("described", "in_sync", "found"),
    [
        (topics.Described(partitions=1, led=1, copies=3), "2", []),
        (topics.Described(partitions=1, led=1, copies=3), "1", [("min.insync.replicas", "2", "1", False)]),
        (topics.Described(partitions=1, led=1, copies=1), "1", []),
        (topics.Described(partitions=1, led=0, copies=1), "1", [("partitions with a leader", "1", "0", False)]),
        (topics.Described(partitions=2, led=2, copies=1), "1", [("partitions", "1", "2", True)]),
    ],
)
def test_temporary_and_optional_differences_are_only_reported(
    described: topics.Described, in_sync: str, found: list[tuple[str, str, str, bool]]
) -> None:
    """A partition without a leader above all: it is an outage, and whoever starts in one waits."""
    spec = Topics().specs()[4]
    differences = topics.find_differences(spec, described, {**spec.config, "min.insync.replicas": in_sync})
    assert [each[:4] for each in differences] == found


async def test_brokers_that_know_no_controller_are_an_outage(settings: Settings) -> None:
    """What aiokafka's admin client raises then; any other slip stays one."""
    nobody: Any = None
    with pytest.raises(KafkaConnectionError, match="no broker says which one is the controller"):
        async with admin(settings.kafka):
            _ = nobody.nodeId
    with pytest.raises(AttributeError):
        async with admin(settings.kafka):
            _ = nobody.port
