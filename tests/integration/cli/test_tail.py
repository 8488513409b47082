import asyncio
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from org_service.kafka import reader as kafka
from org_service.operate import tail as watching
from org_service.operate.tail import View
from org_service.settings import Settings
from tests.support.operating import ORG, OTHER, Orgs
from tests.support.probing import probing
from tests.support.processes import environment

pytestmark = pytest.mark.integration

ALL = ("--from-start", "--no-follow")


@pytest.fixture
async def five_changes(orgs: Orgs, running: object) -> None:
    await orgs("send", "create", "--id", ORG, "--name", "Acme", "--actor", "alice")
    await orgs("send", "create", "--id", OTHER, "--name", "Other", "--actor", "bob")
    for version in ("1", "2", "3"):
        await orgs("send", "update", ORG, "--domain", f"v{version}.example", "--expected-version", version)
    await orgs("send", "update", ORG, "--name", "Late", "--expected-version", "1", code=1)


@pytest.mark.usefixtures("five_changes")
async def test_events_results_and_commands_are_printed_line_by_line(orgs: Orgs) -> None:
    events = (await orgs("tail", "events", *ALL)).stdout.splitlines()
    assert len(events) == 5
    assert events[0].endswith("v1 created     Acme    by alice")
    assert "v3 updated     Acme  domain v1.example → v2.example" in events[3]
    results = (await orgs("tail", "results", *ALL)).stdout.splitlines()
    assert len(results) == 6
    assert "rejected  409  A precondition does not hold" in results[-1]
    commands = (await orgs("tail", "commands", *ALL)).stdout.splitlines()
    assert len(commands) == 6
    assert f"create      {OTHER}  name Other  by bob" in commands[1]


@pytest.mark.usefixtures("five_changes")
async def test_the_last_few_and_those_of_one_organization(orgs: Orgs) -> None:
    last = (await orgs("tail", "events", "-n", "2", "--no-follow", "--json")).json_lines
    assert [(each["key"], each["value"]["version"]) for each in last] == [(ORG, 3), (ORG, 4)]
    of_one = (await orgs("tail", "events", *ALL, "--org", OTHER, "--json")).json_lines
    assert [(each["key"], each["headers"]["ce_type"]) for each in of_one] == [(OTHER, "org.created")]
    last_of_one = (await orgs("tail", "events", "-n", "1", "--org", OTHER, "--no-follow", "--json")).json_lines
    assert [each["key"] for each in last_of_one] == [OTHER]


async def test_an_unreadable_record_is_shown_by_its_coordinates(
    orgs: Orgs, settings: Settings, running: object
) -> None:
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        sent = await producer.send_and_wait(
            settings.kafka.topics.commands, b"\xff\x1b[2J", key=b"\xfe", headers=[("ce_id", b"\xff")], partition=1
        )
    shown = await orgs("tail", "commands", *ALL)
    assert f"unreadable  {settings.kafka.topics.commands}[1] offset {sent.offset}: " in shown.stdout
    (document,) = (await orgs("tail", "commands", *ALL, "--json")).json_lines
    assert (document["value_base64"], document["headers"]) == ("/xtbMko=", {"ce_id": {"base64": "/w=="}})
    await orgs("send", "create", "--name", "Afterwards")
    parked = await orgs("parked", "list")
    assert f"{settings.kafka.topics.commands}[1] offset {sent.offset}" in parked.stdout
    assert re.search(r"\n1 parked\n +1  unreadable\n$", parked.stdout)
    record, totals = (await orgs("parked", "list", "--json")).json_lines
    assert record["reason"] == "unreadable"
    assert totals == {
        "total": 1,
        "shown": 1,
        "totals": [{"state": "open", "reason": "unreadable", "cause": None, "records": 1}],
    }
    assert not {"key", "value", "headers"} & record.keys()


async def test_lost_commands_are_listed_latest_first(orgs: Orgs, database: asyncpg.Connection) -> None:
    nothing = await orgs("lost")
    assert (nothing.stdout, nothing.stderr) == ("", "nothing was lost\n")
    await database.executemany(
        "INSERT INTO lost_range (topic, topic_id, partition, from_offset, to_offset, why, noticed_at)"
        " VALUES ('t.commands', $1, $2, $3, $4, $5, $6)",
        [
            (UUID(ORG), 1, 3, 7, "expired", datetime(2026, 5, 1, 9, 30, 15, tzinfo=UTC)),
            (UUID(ORG), 2, 12, None, "recreated", datetime(2026, 5, 2, 9, 30, 15, tzinfo=UTC)),
        ],
    )
    assert (await orgs("lost")).stdout.splitlines() == [
        "2026-05-02 09:30:15  t.commands[2]  12 to ?  recreated",
        "2026-05-01 09:30:15  t.commands[1]  3 to 7  expired",
    ]
    (latest,) = (await orgs("lost", "--json", "--max", "1")).json_lines
    assert latest == {
        "topic": "t.commands",
        "topic_id": ORG,
        "partition": 2,
        "from_offset": 12,
        "to_offset": None,
        "why": "recreated",
        "noticed_at": "2026-05-02T09:30:15Z",
    }


@pytest.mark.usefixtures("running")
async def test_a_token_is_never_shown(orgs: Orgs) -> None:
    await orgs("send", "create", "--id", ORG, "--name", "Acme", code=1, ORGS_TOKEN="ses.a.me")
    shown = await orgs("tail", "commands", *ALL)
    assert ORG in shown.stdout
    as_json = await orgs("tail", "commands", *ALL, "--json")
    (document,) = as_json.json_lines
    assert document["headers"]["authorization"] == "***"
    assert "ses.a.me" not in shown.stdout + as_json.stdout


@pytest.mark.usefixtures("running")
async def test_following_shows_new_records_and_ends_cleanly_on_ctrl_c(
    orgs: Orgs, settings: Settings, tmp_path: Path
) -> None:
    await orgs("send", "create", "--id", ORG, "--name", "Before")
    tail = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "org_service.cli", "tail", "events", "-n", "1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(settings),
        cwd=tmp_path,
    )
    assert tail.stdout is not None
    async with asyncio.timeout(60):
        assert b"created     Before" in await tail.stdout.readline()
        await orgs("send", "update", ORG, "--name", "Now")
        assert "name Before → Now" in (await tail.stdout.readline()).decode()
        tail.send_signal(signal.SIGINT)
        rest, said = await tail.communicate()
    assert (tail.returncode, rest, said) == (0, b"", b"")


@pytest.mark.usefixtures("five_changes")
@pytest.mark.parametrize("as_json", [(), ("--json",)])
async def test_a_closed_pipe_ends_the_watch_silently(
    settings: Settings, tmp_path: Path, as_json: tuple[str, ...]
) -> None:
    unread, output = os.pipe()
    os.close(unread)
    tail = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "org_service.cli", "tail", "events", "--from-start", *as_json),
        stdout=output,
        stderr=asyncio.subprocess.PIPE,
        env=environment(settings),
        cwd=tmp_path,
    )
    os.close(output)
    async with asyncio.timeout(60):
        _, said = await tail.communicate()
    assert (tail.returncode, said) == (141, b"")


async def test_a_consumer_that_lets_a_cancellation_out_while_kafka_is_away_disturbs_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = AIOKafkaConsumer.stop

    async def stop_as_in_an_outage(consumer: AIOKafkaConsumer) -> None:
        await stop(consumer)
        raise asyncio.CancelledError

    monkeypatch.setattr(AIOKafkaConsumer, "stop", stop_as_in_an_outage)
    async with kafka.reader(settings.kafka, settings.kafka.topics.events) as (_, partitions):
        assert len(partitions) == settings.kafka.partitions


@pytest.mark.parametrize("view", [View(from_start=True), View(last=5), View()])
async def test_nothing_is_lost_between_what_is_there_and_what_comes(settings: Settings, view: View) -> None:
    """One step of the reader may hold records from both sides of the end."""
    topic = settings.kafka.topics.commands
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:

        async def send(*numbers: int) -> None:
            for number in numbers:
                await producer.send_and_wait(topic, b"%d" % number, partition=0)

        async def send_more() -> None:
            await send(*range(5, 10))

        await send(*range(5))
        shown: list[bytes | None] = []
        async with asyncio.timeout(30):
            with probing("operate.ends_found", send_more):
                async for records in watching.watch(settings.kafka, topic, view):
                    shown += [record.value for record in records]
                    if b"9" in shown:
                        break
    assert shown == [b"%d" % number for number in range(0 if view != View() else 5, 10)]
