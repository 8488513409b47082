"""A bad release on a real Kafka and Postgres: it parks nothing, and the next good one decides everything."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from org_events.commands import CreateOrganization, UpdateOrganization
from org_service.drilling.builds import Build
from org_service.errors import RetryError
from org_service.settings import Settings
from org_service.worker.worker import Worker
from tests.integration.worker.publishing import committed, send
from tests.integration.worker.running import running
from tests.support import edge, plain_http
from tests.support.edge import People, with_edge
from tests.support.records import FakeRecord, record_of
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORGANIZATIONS = 1_000
COMMANDS_EACH = 10
WITHIN_S = 90.0
"""For ten thousand commands, on a machine that is busy."""
FIRST_PAUSE_S = 0.2
BEAT_MAX_S = 10.0
"""Far below what `/livez` allows."""


def with_pauses(settings: Settings, wait_s: float = FIRST_PAUSE_S, wait_max_s: float = 1.0) -> Settings:
    """A worker that tries again soon after a trip, and often."""
    pauses = {"breaker_wait_s": wait_s, "breaker_wait_max_s": wait_max_s}
    return settings.model_copy(update={"worker": settings.worker.model_copy(update=pauses)})


async def said(worker: Worker, check: str) -> str:
    try:
        return await worker.checks()[check]()
    except RetryError as error:
        return f"not ready: {error}"


async def is_resting(worker: Worker) -> bool:
    """Whether it has left its commands to others."""
    return (await said(worker, "breaker")).startswith("not ready: commands are left to other workers: ")


def trips(why: str) -> float:
    return REGISTRY.get_sample_value("orgs_worker_breaker_trips_total", {"why": why}) or 0


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name)


def pauses_s(logs: Sequence[Any]) -> list[float]:
    """How long workers leave their commands to others, as they say."""
    return [each["retry_in_s"] for each in logs if each["event"] == "commands are left to other workers"]


def life(org_id: UUID, number: int) -> list[FakeRecord]:
    """The commands of one organization: it is created, then renamed."""
    return [
        record_of(CreateOrganization(org_id=org_id, name=f"Org {number}")),
        *(record_of(UpdateOrganization(org_id=org_id, name=f"Org {number}.{n}")) for n in range(1, COMMANDS_EACH)),
    ]


def created(name: str) -> FakeRecord:
    return record_of(CreateOrganization(org_id=uuid4(), name=name))


async def count(database: asyncpg.Connection, table: str) -> object:
    return await database.fetchval(f"SELECT count(*) FROM {table}")


async def test_a_build_that_raises_on_everything_parks_nothing_and_a_good_one_beside_it_decides_everything(
    settings: Settings, database: asyncpg.Connection
) -> None:
    settings = with_pauses(settings)
    lives = [life(uuid4(), number) for number in range(ORGANIZATIONS)]
    await send(settings, *(each[turn] for turn in range(COMMANDS_EACH) for each in lives))
    before = trips("nothing_decided")
    with capture_logs() as logs:
        async with running(settings, decider=Build()) as bad:
            await until(lambda: trips("nothing_decided") >= before + 3)  # the first batch, and two tries later
            assert (await count(database, "parked"), await count(database, "journal")) == (0, 0)
            assert await committed(settings) == 0
            assert gauge("orgs_worker_breaker_open") == 1
            await until(lambda: is_resting(bad))
            assert "roll the release back" in (await said(bad, "breaker")).lower()
            assert max(time.monotonic() - each.at_s for each in bad.heartbeats) < BEAT_MAX_S
            async with running(settings) as good:
                total = ORGANIZATIONS * COMMANDS_EACH
                await until(lambda: database.fetchval("SELECT count(*) FROM journal"), total, WITHIN_S)
                await until(lambda: committed(settings), total, WITHIN_S)
                assert await said(good, "breaker") == "closed"
            assert (await said(bad, "breaker")).startswith("not ready: ")
    assert await count(database, "parked") == 0
    codes = await database.fetch("SELECT outcome, code, count(*) FROM journal GROUP BY 1, 2")
    assert [tuple(row) for row in codes] == [("applied", 200, total)]
    names = {row["id"]: (row["name"], row["version"]) for row in await database.fetch("SELECT * FROM organization")}
    assert set(names.values()) == {(f"Org {n}.{COMMANDS_EACH - 1}", COMMANDS_EACH) for n in range(ORGANIZATIONS)}
    whys = {each["why"] for each in logs if each["event"] == "commands are left to other workers"}
    assert len(whys) == 1
    assert "ZeroDivisionError in __call__, line " in whys.pop()


async def test_a_build_that_raises_for_one_organization_parks_that_organization_alone(
    settings: Settings, database: asyncpg.Connection
) -> None:
    org_ids = [uuid4() for _ in range(100)]
    lives, sick = [life(org_id, number) for number, org_id in enumerate(org_ids)], org_ids[7]
    await send(settings, *(each[turn] for turn in range(COMMANDS_EACH) for each in lives))
    async with running(settings, decider=Build(lambda command: command.org_id == sick)) as worker:
        await until(lambda: committed(settings), 100 * COMMANDS_EACH)
        assert await said(worker, "breaker") == "closed"
        assert await said(worker, "parked") != "none because of a defect of ours"
    rows = await database.fetch("SELECT org_id, reason, count(*) FROM parked GROUP BY 1, 2 ORDER BY 3")
    assert [tuple(row) for row in rows] == [(sick, "handler_raised", 1), (sick, "queued_behind", COMMANDS_EACH - 1)]
    assert await count(database, "journal") == 99 * COMMANDS_EACH


async def test_a_build_that_raises_on_15_percent_of_commands_parks_these(
    settings: Settings, database: asyncpg.Connection
) -> None:
    await send(settings, *(record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(2_000)))
    sick = {f"Org {n}" for n in range(2_000) if n % 20 in (0, 7, 13)}
    async with running(settings, decider=Build(lambda command: command.name in sick)):
        await until(lambda: committed(settings), 2_000)
    assert await count(database, "parked") == 300
    assert await count(database, "journal") == 1_700


async def test_a_bad_build_that_gets_one_command_at_a_time_parks_none(
    settings: Settings, database: asyncpg.Connection
) -> None:
    settings = with_pauses(settings, 30, 30)
    await send(settings, created("Acme"))
    async with running(settings, decider=Build()) as bad:
        await until(lambda: is_resting(bad))
        assert (await count(database, "parked"), await committed(settings)) == (0, 0)
        async with running(settings):
            await until(lambda: committed(settings), 1)
            await send(settings, created("Globex"))
            await until(lambda: committed(settings), 2)
    assert [row["code"] for row in await database.fetch("SELECT code FROM journal")] == [200, 200]


async def test_poison_is_parked_at_once_where_it_is_the_first_command_of_a_good_build(
    settings: Settings, database: asyncpg.Connection
) -> None:
    await send(settings, created("Boom"))
    async with running(settings, decider=Build(lambda command: getattr(command, "name", "") == "Boom")) as worker:
        await until(lambda: committed(settings), 1)
        assert await said(worker, "breaker") == "closed"
    assert await database.fetchval("SELECT reason FROM parked") == "handler_raised"


async def test_the_next_start_continues_where_a_bad_release_stopped(
    settings: Settings, database: asyncpg.Connection
) -> None:
    lives = [life(uuid4(), number) for number in range(50)]
    await send(settings, *(each[0] for each in lives))
    async with running(settings):
        await until(lambda: committed(settings), 50)
    await send(settings, *(each[turn] for turn in range(1, COMMANDS_EACH) for each in lives))
    for _ in range(2):  # started again and again, as an orchestrator does
        async with running(with_pauses(settings), decider=Build()) as bad:
            await until(lambda: is_resting(bad))
    assert (await count(database, "parked"), await committed(settings)) == (0, 50)
    async with running(settings):
        await until(lambda: committed(settings), 500)
    assert await database.fetchval("SELECT count(*) FROM organization WHERE version = 10") == 50


async def test_a_defect_that_passes_stops_a_worker_no_longer_than_a_pause(
    settings: Settings, database: asyncpg.Connection
) -> None:
    build = Build()
    await send(settings, *(created(f"Org {number}") for number in range(300)))
    async with running(with_pauses(settings), decider=build) as worker:
        before = trips("nothing_decided")
        await until(lambda: trips("nothing_decided") >= before + 2)
        build.fails = lambda _: False
        await until(lambda: committed(settings), 300)
        assert await said(worker, "breaker") == "closed"
        assert await said(worker, "kafka") == "answers"
        assert (await said(worker, "consumer")).endswith(" partitions")
        assert gauge("orgs_worker_breaker_open") == 0
        build.fails = lambda _: True
        with capture_logs() as logs:
            await send(settings, created("Globex"))
            await until(lambda: pauses_s(logs))
        assert pauses_s(logs)[0] <= FIRST_PAUSE_S  # as if it had never tripped before
    assert await database.fetchval("SELECT count(*) FROM journal WHERE code = 200") == 300
    assert await count(database, "parked") == 0


async def test_a_worker_that_rests_drains_at_once(settings: Settings) -> None:
    await send(settings, created("Acme"))
    async with running(with_pauses(settings, 300, 300), decider=Build()) as worker:
        await until(lambda: is_resting(worker))
        seen = {check: await said(worker, check) for check in ("kafka", "consumer", "log", "parked")}
        left = "not ready: commands are left to other workers"
        parked = "none because of a defect of ours"
        assert seen == {"kafka": "answers", "consumer": left, "log": left, "parked": parked}
        since_s = time.monotonic()
    assert time.monotonic() - since_s < settings.drain_timeout_s


async def test_an_operator_may_switch_the_breaker_off(settings: Settings, database: asyncpg.Connection) -> None:
    off = settings.model_copy(update={"worker": settings.worker.model_copy(update={"breaker": False})})
    await send(settings, *(created(f"Org {number}") for number in range(50)))
    async with running(off, decider=Build()) as worker:
        await until(lambda: committed(settings), 50)
        assert await said(worker, "breaker") == "switched off"
    assert await count(database, "parked") == 50


async def test_over_http_a_command_is_pending_until_a_good_build_decides_it(
    settings: Settings, database: asyncpg.Connection, tmp_path: Path
) -> None:
    people = People(tmp_path)
    site = with_edge(settings, people, outcome_timeout_s=1)
    await edge.add_staff(site, "root")
    async with running(with_pauses(site, 30, 30), decider=Build()) as bad, edge.running(site, worker=False) as front:
        url = f"http://127.0.0.1:{front.port}"
        async with plain_http.async_client(base_url=url, headers=people.headers("root"), timeout=30) as root:
            accepted = await root.post("/v1/orgs", json={"name": "Acme"})
            assert (accepted.status_code, accepted.json()["status"]) == (202, "pending")
            await until(lambda: is_resting(bad))
            location = accepted.headers["location"]
            assert (await root.get(location)).json()["status"] == "pending"
            async with running(site):
                await until(lambda: database.fetchval("SELECT count(*) FROM journal WHERE code = 200"), 1)
            decided = (await root.get(location)).json()
            assert decided["status"] != "pending", decided
    assert await count(database, "parked") == 0
