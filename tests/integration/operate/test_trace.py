"""What became of a command, hop by hop."""

import asyncio
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from org_events.commands import CreateOrganization, UpdateOrganization
from org_service.operate import grow_topics
from org_service.relay import relay
from org_service.settings import Settings
from org_service.worker import commands
from tests.integration.operate.parking import apply, failing_for, record
from tests.integration.worker.publishing import send
from tests.support import log_faults
from tests.support.database import execute, fetch
from tests.support.erasing import CONTACT, NAME, holds_canary
from tests.support.idle import wait_until_idle
from tests.support.operating import ORG, Orgs, Service
from tests.support.partitioner import partition_of
from tests.support.records import record_of
from tests.support.relaying import applied, journal, org, running

pytestmark = pytest.mark.integration

HOPS = ["record", "token", "rule", "journal", "event", "state", "result"]


async def test_a_command_is_followed_from_topic_to_topic(orgs: Orgs, settings: Settings, service: Service) -> None:
    service.start("worker", "relay")
    topics = settings.kafka.topics
    created = (await orgs("send", "create", "--id", ORG, "--name", "Acme", "--actor", "alice", "--json")).json
    taken = (await orgs("send", "create", "--name", "ACME", "--json", code=1)).json
    await orgs("send", "update", ORG, "--name", "Beta")
    await wait_until_idle(settings, 30)
    found = (await orgs("trace", created["command_id"], "--json")).json
    assert (found["status"], found["org_id"], found["notes"]) == ("applied", ORG, [])
    assert [each["name"] for each in found["hops"]] == HOPS
    by_name = {each["name"]: each for each in found["hops"]}
    assert "alice" in by_name["token"]["said"]
    assert by_name["journal"]["said"] == "position 1, version 1"
    names = ("record", "event", "state", "result")
    found_on = [by_name[name]["topic"] for name in names if by_name[name]["offset"] is not None]
    assert found_on == [topics.commands, topics.events, topics.state, topics.results]
    assert all(-60_000 < each["ms"] < 60_000 for each in found["hops"] if each["ms"] is not None)
    assert (await orgs("trace", "1", "--json")).json == found
    at = f"{by_name['record']['partition']}:{by_name['record']['offset']}"
    assert (await orgs("trace", at, "--json")).json == found
    text = (await orgs("trace", created["command_id"])).stdout
    assert "ms" in text
    assert f"{topics.events}[" in text
    rejected = (await orgs("trace", taken["command_id"], "--json")).json
    assert (rejected["status"], [each["name"] for each in rejected["hops"]]) == ("rejected", [*HOPS[:4], "result"])
    assert "409" in rejected["hops"][2]["said"]

    again = record_of(CreateOrganization(org_id=UUID(ORG), name="Acme"), UUID(created["command_id"]))
    other = record_of(CreateOrganization(org_id=UUID(ORG), name="Other"), UUID(created["command_id"]))
    partition, offset = (int(each) for each in at.split(":"))
    coordinates: list[str] = []
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for each in (again, other):
            sent = await producer.send_and_wait(
                topics.commands, each.value, each.key, partition, headers=list(each.headers)
            )
            coordinates.append(f"{partition}:{sent.offset}")
    await wait_until_idle(settings, 30)
    duplicate, reused = [(await orgs("trace", each, "--json")).json for each in coordinates]
    assert (duplicate["status"], reused["status"]) == ("duplicate", "rejected")
    assert f"at position 1, from partition {partition}, offset {offset}" in duplicate["notes"][0]
    assert "command-id-reused" in reused["notes"][0]

    lines = (await orgs("trace", ORG, "--json")).json_lines
    assert [(each["position"], each["outcome"]) for each in lines] == [(1, "applied"), (3, "applied")]
    assert "position 3" in (await orgs("trace", ORG, "-n", "1")).stdout
    assert "nothing is known" in (await orgs("trace", str(uuid4()), code=1)).stderr
    assert "no row at position 99" in (await orgs("trace", "99", code=1)).stderr
    assert "no id, no position" in (await orgs("trace", "Acme", code=1)).stderr
    assert "no record at offset" in (await orgs("trace", "0:5000", code=1)).stderr

    await service.stop()
    await asyncio.to_thread(
        log_faults.delete_records, settings.kafka.bootstrap_servers, topics.commands, {partition: offset + 1}
    )
    gone = (await orgs("trace", created["command_id"], "--json")).json
    assert gone["hops"][0]["said"] == "gone"
    assert gone["hops"][0]["at"] == by_name["record"]["at"]
    assert "no longer on the topic" in gone["notes"][0]


async def test_a_command_without_an_outcome_is_found_where_it_is(orgs: Orgs, settings: Settings) -> None:
    unread, stuck, expired = uuid4(), uuid4(), uuid4()
    await send(settings, *(record_of(CreateOrganization(org_id=org(n), name=f"Acme {n}")) for n in range(40)))
    await send(settings, record_of(UpdateOrganization(org_id=org(7), name="Beta"), unread))
    found = (await orgs("trace", str(unread), "--json")).json
    assert (found["status"], found["org_id"]) == ("unread", str(org(7)))
    assert "workers have yet to read it" in found["notes"][0]
    with failing_for([org(99)]):
        await apply(settings, record(settings, CreateOrganization(org_id=org(99), name="Nine"), stuck))
    found = (await orgs("trace", str(stuck), "--json")).json
    assert found["status"] == "parked"
    assert "handler raised: open" in found["hops"][1]["said"]
    listed = (await orgs("trace", str(org(99)), "--json")).json_lines
    assert [(each["outcome"], each["why"]) for each in listed] == [("parked", "handler_raised")]
    await execute(
        settings,
        "INSERT INTO accepted_command VALUES ($1, 'alice', $2, now(), 1, 5000)",
        expired,
        org(1),
    )
    assert (await orgs("trace", str(expired), "--json")).json["status"] == "pending"
    await execute(
        settings,
        "INSERT INTO lost_range (topic, topic_id, partition, from_offset, to_offset, why, noticed_at) "
        "VALUES ('t', $1, 1, 4000, 6000, 'expired', now())",
        uuid4(),
    )
    assert (await orgs("trace", str(expired), "--json")).json["status"] == "expired"


async def test_an_event_is_found_by_halving_among_replayed_ones(orgs: Orgs, settings: Settings) -> None:
    """Among 3,000 of one partition; and what a run sent again is not taken for it."""
    only = org(3)
    head = await journal(settings, (applied(only, version) for version in range(1, 3_001)))
    async with running(settings) as relay:
        await relay.published(head)
    some = ("--from-position", "500", "--to-position", "2000")
    await orgs("replay", "events", *some, "--in-place", "--execute", "--reason", "a test")
    for position in (1, 1_250, 3_000):
        row = (await fetch(settings, "SELECT command_id FROM journal WHERE position = $1", position))[0]
        found = (await orgs("trace", str(row["command_id"]), "--json")).json
        event = next(each for each in found["hops"] if each["name"] == "event")
        records = await read_at(settings, settings.kafka.topics.events, event["partition"], event["offset"])
        headers = dict(records.headers)
        assert headers["ce_position"] == str(position).encode()
        assert "ce_replayrun" not in headers
        assert any(each["name"] == "result" for each in found["hops"])


async def read_at(settings: Settings, topic: str, partition: int, offset: int) -> ConsumerRecord:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers)
    await consumer.start()
    try:
        at = TopicPartition(topic, partition)
        consumer.assign([at])
        consumer.seek(at, offset)
        return await consumer.getone(at)
    finally:
        await consumer.stop()


async def test_of_an_erased_organization_is_told_what_is_left(orgs: Orgs, settings: Settings, service: Service) -> None:
    service.start("worker", "relay")
    created = (await orgs("send", "create", "--id", ORG, "--name", NAME, "--actor", CONTACT, "--json")).json
    wrong = ("send", "update", ORG, "--name", NAME, "--expected-version", "9", "--actor", CONTACT, "--json")
    rejected = (await orgs(*wrong, code=1)).json
    await orgs("send", "delete", ORG, "--actor", CONTACT)
    await orgs("erase", ORG, "--execute", "--reason", "x", ORGS_OPERATE__ERASE_GRACE_DAYS="0")
    await wait_until_idle(settings, 30)
    told = [await orgs("trace", each["command_id"], "--json") for each in (created, rejected)]
    assert [(each.json["status"], each.json["org_id"]) for each in told] == [("applied", ORG), ("rejected", ORG)]
    assert [[hop["name"] for hop in each.json["hops"]] for each in told] == [
        ["journal", "event", "state", "result"],
        ["journal", "result"],
    ]
    assert all("its organization was erased" in each.json["notes"][0] for each in told)
    listed = await orgs("trace", ORG, "--json")
    lines = [(each["position"], each["command_type"], each["outcome"]) for each in listed.json_lines]
    assert lines == [
        (1, "org.create", "applied"),
        (2, "org.update", "rejected"),
        (3, "org.delete", "applied"),
        (4, "org.erase", "applied"),
    ]
    erasure = (await orgs("trace", "4", "--json")).json
    assert [(hop["name"], hop["said"]) for hop in erasure["hops"]] == [
        ("journal", "position 4"),
        ("event", "org.erased"),
        ("state", "tombstone"),
        ("result", "applied 200"),
    ]
    for each in (*told, listed, await orgs("trace", ORG), await orgs("trace", "4")):
        assert not holds_canary(each.output.encode())


async def test_what_was_before_topics_grew_is_still_found(
    orgs: Orgs, settings: Settings, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice: then it lies where it belonged at first."""
    monkeypatch.setattr(grow_topics, "CLIENTS_KNOW_S", 1.0)
    monkeypatch.setattr(relay, "PARTITIONS_LOOK_S", 0.3)
    monkeypatch.setattr(commands, "LOOK_S", 0.3)
    many = (org(number) for number in range(100))
    moving, stuck = [each for each in many if len({partition_of(str(each).encode(), n) for n in (3, 6, 12)}) == 3][:2]
    command_id, parked_id = uuid4(), uuid4()
    with failing_for({stuck}):
        service.start("worker", "relay")
        await send(settings, record_of(CreateOrganization(org_id=moving, name="Moving"), command_id))
        await send(settings, record_of(CreateOrganization(org_id=stuck, name="Stuck"), parked_id))
        await wait_until_idle(settings, 30)
        before = [(await orgs("trace", str(each), "--json")).json for each in (command_id, parked_id)]
        for partitions in ("6", "12"):
            await orgs("topics", "grow", "--partitions", partitions, "--execute", "--reason", "a test")
        await send(settings, record_of(UpdateOrganization(org_id=moving, name="Moved"), uuid4()))
        await wait_until_idle(settings, 30)
        await service.stop()
    after = [(await orgs("trace", str(each), "--json")).json for each in (command_id, parked_id)]
    assert [each["name"] for each in before[0]["hops"]] == HOPS
    assert [each["name"] for each in before[1]["hops"]] == ["record", "parked", "result"]
    for was, now in zip(before, after, strict=True):
        where = ("name", "topic", "partition", "offset")
        kept = [[each[name] for name in where] for each in was["hops"] if each["name"] != "state"]
        assert [[each[name] for name in where] for each in now["hops"] if each["name"] != "state"] == kept
