"""`orgs erase --status` finds what is left of erased organizations, in tables and topics, until it is gone."""

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from org_events.commands import CreateOrganization, DeleteOrganization, UpdateOrganization
from org_service.operate import erasure_status, publish, runs
from org_service.settings import LogSettings, Settings
from tests.support import log_faults
from tests.support.collector import Collector
from tests.support.database import execute
from tests.support.erasing import ADDRESS, CONTACT, DOMAIN, NAME, find_canary, holds_canary
from tests.support.operating import Acting, Orgs, Service
from tests.support.processes import Role, ServiceProcess
from tests.support.topics import read_topic
from tests.support.waiting import until

pytestmark = pytest.mark.integration

SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def left(settings: Settings, org_id: UUID | None = None) -> dict[str, int]:
    found = await erasure_status.look(settings, org_id, lambda _: None)
    prefix = f"topic {settings.kafka.topic_prefix}"
    return {each.place.removeprefix(prefix): each.left for each in found.copies if each.left}


async def clean_up_often(settings: Settings) -> None:
    """Let brokers look for what can be compacted each quarter of a second, and let every record end a segment."""
    servers = settings.kafka.bootstrap_servers

    def configure() -> None:
        entry = ConfigEntry("log.cleaner.backoff.ms", "250", incremental_operation=AlterConfigOpType.SET)
        everywhere = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": servers})  # kept: without it nobody would hear the answer
        admin.incremental_alter_configs([everywhere])[everywhere].result(20)
        log_faults.configure(
            servers,
            settings.kafka.topics.state,
            {"segment.ms": "1", "max.compaction.lag.ms": "1", "min.cleanable.dirty.ratio": "0.01"},
        )

    await asyncio.to_thread(configure)


async def delete_old(settings: Settings, topic: str) -> None:
    """As retention does it, at once."""
    ends = await asyncio.to_thread(
        log_faults.ends, settings.kafka.bootstrap_servers, topic, range(settings.kafka.partitions)
    )
    await asyncio.to_thread(log_faults.delete_records, settings.kafka.bootstrap_servers, topic, ends)


async def test_what_is_left_is_found_until_kafka_has_removed_it(
    orgs: Orgs, settings: Settings, act: Acting, service: Service
) -> None:
    org_id, topics = uuid4(), settings.kafka.topics
    await act("kari", [CreateOrganization(org_id=org_id, name=NAME), UpdateOrganization(org_id=org_id, domain=DOMAIN)])
    await orgs("replay", "events", "--execute", "--reason", "x")
    await act("kari", [DeleteOrganization(org_id=org_id)])
    await orgs("erase", str(org_id), "--execute", "--reason", "x", ORGS_OPERATE__ERASE_GRACE_DAYS="0")
    said = await orgs("erase", "--status", str(org_id), "--json", code=1)
    copies = {each["place"].partition(settings.kafka.topic_prefix)[2]: each for each in said.json["copies"]}
    assert (said.json["organizations"], copies["orgs.events"]["left"], copies["orgs.commands"]["left"]) == (1, 3, 3)
    assert copies["orgs.results"]["left"] == 2
    ours = {each.removeprefix(settings.kafka.topic_prefix) for each in topics.data}
    (replayed,) = (name for name in copies if name and name not in ours)
    assert copies[replayed]["left"] == 2
    assert "delete it" in copies[replayed]["advice"]
    assert all(each["gone_by"] is not None for each in said.json["copies"] if each["left"])

    # What settings make impossible is said, with the setting.
    await asyncio.to_thread(
        log_faults.configure, settings.kafka.bootstrap_servers, topics.events, {"retention.ms": "-1"}
    )
    said = await orgs("erase", "--status", code=1)
    assert f"set retention.ms of {topics.events}" in " ".join(said.stdout.split())

    await clean_up_often(settings)
    for topic in (topics.commands, topics.results, topics.events):
        await delete_old(settings, topic)
    topic = f"{settings.kafka.topic_prefix}{replayed}"
    await asyncio.to_thread(log_faults.delete_topic, settings.kafka.bootstrap_servers, topic)
    # Anything later ends the segments that have what a tombstone has replaced.
    for number in range(2):
        await act("alice", [CreateOrganization(org_id=uuid4(), name=f"Acme {number} {n}") for n in range(12)])
    await until(lambda: is_gone(settings, org_id), timeout_s=60)
    for topic in (*topics.data, topics.relay):
        for each in await read_topic(settings, topic):
            assert not holds_canary(b"".join((each.key() or b"", each.value() or b"", repr(each.headers()).encode())))
    await orgs("erase", "--status", str(org_id))
    await service.stop()


async def is_gone(settings: Settings, org_id: UUID) -> bool:
    return "orgs.state" not in await left(settings, org_id)


async def test_what_is_written_to_tables_afterwards_is_found(orgs: Orgs, settings: Settings, act: Acting) -> None:
    org_id = uuid4()
    await act("kari", [CreateOrganization(org_id=org_id, name=NAME), DeleteOrganization(org_id=org_id)])
    await orgs("erase", str(org_id), "--execute", "--reason", "x", ORGS_OPERATE__ERASE_GRACE_DAYS="0")
    assert {"journal", "parked", "accepted_command", "operation"}.isdisjoint(
        name.removeprefix("table ") for name in await left(settings)
    )
    await execute(settings, "UPDATE journal SET before = '{}' WHERE version = 1 AND org_id = $1", org_id)
    await execute(
        settings,
        "INSERT INTO accepted_command (command_id, actor, org_id, accepted_at) VALUES ($1, 'kari', $1, '2026-01-01')",
        org_id,
    )
    await execute(
        settings,
        'INSERT INTO parked (topic, partition, "offset", broker_time, key, headers, reason, detail, attempts, state, '
        "recorded_at) VALUES ('c', 0, 1, now(), $1, '[]', 'unreadable', '', 1, 'discarded', '2026-01-01')",
        str(org_id).encode(),
    )
    said = "UPDATE operation SET sample = jsonb_build_array(jsonb_build_object('id', $1::text, 'n', 'Kari'))"
    await execute(settings, said, str(org_id))
    found = await left(settings, org_id)
    assert {name: rows for name, rows in found.items() if name.startswith("table ")} == {
        "table journal": 1,
        "table accepted_command": 1,
        "table parked": 1,
        "table operation": 1,
    }


async def test_no_log_no_metric_and_no_span_says_anything_of_it(settings: Settings, tmp_path: Path) -> None:
    """Not while it was there either: nobody could erase it from where these go."""
    with Collector() as collector:
        settings = settings.model_copy(
            update={"log": LogSettings(level="debug", format="json"), "tracing": collector.settings()}
        )
        roles: tuple[Role, ...] = ("worker", "relay", "operate")
        processes = [ServiceProcess(role, settings, tmp_path) for role in roles]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.wait_until_ready()
            await _live_and_be_erased(settings)
            for process in processes:
                assert len(process.metrics()) > 10
                assert not any(holds_canary(each.encode()) for each in process.metrics())
        finally:
            for process in processes:
                process.close()
    for process in processes:
        assert process.lines()
        assert not holds_canary(process.log_path.read_bytes())
    assert {role for span in collector.spans for role in span.roles} >= {"worker", "relay"}
    assert not holds_canary(collector.raw)


async def _live_and_be_erased(settings: Settings) -> None:
    """Also with commands that are rejected: what they said is in no log either."""
    org_id = uuid4()
    create = CreateOrganization.model_validate(
        {"org_id": org_id, "name": NAME, "domain": DOMAIN, "primary_address": ADDRESS}
    )
    async with publish.connect(settings.kafka, actor=CONTACT, traceparent=SAMPLED, timeout_s=60) as client:
        for command, code in (
            (create, 200),
            (create, 409),
            (UpdateOrganization(org_id=org_id, domain=f"www.{DOMAIN}", expected_version=9), 409),
            (UpdateOrganization(org_id=org_id, domain=None), 200),
            (DeleteOrganization(org_id=org_id), 200),
        ):
            assert (await client.execute(command)).code == code
    orgs = Orgs(settings, {})
    ran = await orgs("erase", str(org_id), "--detach", "--reason", NAME, "--json", ORGS_OPERATE__ERASE_GRACE_DAYS="0")

    async def is_done() -> bool:
        return (await runs.find(settings, UUID(ran.json["id"]))).state == "done"

    await until(is_done)
    assert await find_canary(settings) == {}
