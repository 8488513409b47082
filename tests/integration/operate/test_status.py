"""One screen that says how everything is, and what could not be had."""

import asyncio
import time
from uuid import UUID

import pytest

import org_local
from org_events.commands import CreateOrganization
from org_service.operate import runs
from org_service.serving.health import HealthServer
from org_service.settings import Settings
from org_service.worker.worker import Worker
from tests.integration.operate.parking import apply, failing_for, record
from tests.integration.worker.publishing import send
from tests.support.idle import wait_until_idle
from tests.support.operating import Orgs, Service
from tests.support.records import record_of
from tests.support.relaying import changes, journal, org

pytestmark = pytest.mark.integration

NO_KAFKA = {"ORGS_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}
NO_POSTGRES = {"ORGS_DATABASE__URL": "postgresql://postgres@127.0.0.1:9/orgs"}


async def test_everything_is_on_one_screen(orgs: Orgs, settings: Settings, service: Service) -> None:
    service.start("worker", "relay")
    await orgs("send", "create", "--name", "Acme")
    await wait_until_idle(settings, 30)
    found = (await orgs("status", "--json")).json
    assert found["unavailable"] == {}
    assert (found["database"]["head"], found["database"]["schema"]) == (1, found["database"]["schema_needed"])
    assert found["leader"]["pid"] > 0
    assert found["relay"] == {"position": 1, "positions": 0, "seconds": 0}
    (group,) = found["groups"]
    assert group["group"] == f"{settings.kafka.topic_prefix}{settings.worker.group_id}"
    assert (group["state"], group["lag"], group["loss_s"]) == ("Stable", 0, None)
    await service.stop()
    await send(settings, *(record_of(CreateOrganization(org_id=org(n), name=f"Acme {n}")) for n in range(5)))
    with failing_for([org(9)]):
        await apply(settings, record(settings, CreateOrganization(org_id=org(9), name="Nine")))
    await journal(settings, changes(4))
    found = (await orgs("status", "--json")).json
    (group,) = found["groups"]
    assert (group["state"], group["members"], group["lag"]) == ("Empty", 0, 5)
    assert found["leader"] is None
    assert (found["relay"]["position"], found["relay"]["positions"]) == (1, 4)
    assert found["relay"]["seconds"] > 0
    (parked,) = found["parked"]
    assert (parked["reason"], parked["records"]) == ("handler_raised", 1)
    assert 13 * 86_400 < parked["loss_s"] <= 14 * 86_400  # the record claims to be new, and commands stay 14 days
    partitions = [each for each in group["partitions"] if each["lag"]]
    assert all(13 * 86_400 < each["loss_s"] <= 14 * 86_400 and each["lag_s"] < 60 for each in partitions)
    text = (await orgs("status")).stdout
    assert "nobody leads" in text
    assert "handler raised" in text
    assert "published up to 1, 4 behind" in text
    for each in partitions:
        assert f"{each['topic']}" in text


async def test_a_breaker_is_shown_where_a_health_page_is_named(orgs: Orgs, settings: Settings) -> None:
    worker = Worker(settings)
    async with HealthServer(worker, host="127.0.0.1", port=0, stalled_after_s=60) as server:
        found = (await orgs("status", "--json", ORGS_WORKER__PORT=str(server.port))).json
        assert found["health"]["worker"]["checks"]["breaker"]
        text = (await orgs("status", ORGS_WORKER__PORT=str(server.port))).stdout
        assert "worker" in text
    health = (await orgs("status", "--json", ORGS_WORKER__PORT="9")).json["health"]
    assert "nobody answers at" in health["worker"]["unavailable"]


@pytest.mark.parametrize(
    ("missing", "variables"),
    [
        ({"kafka", "relay"}, NO_KAFKA),
        ({"database", "relay"}, NO_POSTGRES),
        ({"kafka", "database", "relay"}, NO_KAFKA | NO_POSTGRES),
    ],
)
async def test_what_is_away_is_said_and_the_rest_is_shown(
    orgs: Orgs, missing: set[str], variables: dict[str, str]
) -> None:
    began_s = time.monotonic()
    answer = await orgs("status", "--json", code=3, **variables)
    assert time.monotonic() - began_s < 40
    assert answer.json["unavailable"].keys() == missing
    assert (answer.json["database"] is None) == ("database" in missing)
    assert (answer.json["groups"] is None) == ("kafka" in missing)


async def test_servers_that_hang_delay_it_by_seconds(orgs: Orgs, settings: Settings, stack: org_local.Stack) -> None:
    text = (await orgs("status")).stdout
    assert "could not be had" not in text
    stack.kafka.pause()
    try:
        began_s = time.monotonic()
        answer = await asyncio.wait_for(orgs("status", code=3), 90)
        assert time.monotonic() - began_s < 60
    finally:
        stack.kafka.resume()
    assert "could not be had: no answer in" in answer.stdout
    assert "PostgreSQL" in answer.stdout


async def test_what_runs_is_shown(orgs: Orgs, settings: Settings) -> None:
    await journal(settings, changes(300))
    slowly = ("--rate-per-second-max", "50", "--reason", "lost by billing")
    planned = (await orgs("replay", "events", *slowly, "--json")).json["id"]
    running = asyncio.create_task(runs.run(settings, UUID(planned)))
    while not (found := (await orgs("status", "--json")).json["runs"]):
        await asyncio.sleep(0.1)
    assert found[0]["id"] == planned
    assert "replay events" in (await orgs("status")).stdout
    await orgs("runs", "cancel", planned)
    await running
