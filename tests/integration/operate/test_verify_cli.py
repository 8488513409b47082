"""`orgs verify` and `orgs repair` as an operator has them, and verification again and again."""

import asyncio
from typing import Any

import pytest

from org_service.operate.operator import Operator
from org_service.operate.verifying import jobs
from org_service.operate.verifying.report import Verdict
from org_service.operate.verifying.verification import Asked, verify
from org_service.settings import Settings
from org_service.telemetry.metrics import VERIFIED_DIFFERENCES, VERIFIED_THROUGH
from tests.support.database import connected, execute
from tests.support.idle import wait_until_idle
from tests.support.operating import ORG, Orgs, Service
from tests.support.probing import probing
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def history(orgs: Orgs, service: Service, settings: Settings) -> None:
    service.start("worker", "relay")
    await orgs("send", "create", "--id", ORG, "--name", "Acme", "--domain", "acme.example")
    await orgs("send", "update", ORG, "--clear", "domain")
    await wait_until_idle(settings, 30)


@pytest.mark.usefixtures("history")
async def test_the_command_line_says_what_differs_and_what_to_do(orgs: Orgs, settings: Settings) -> None:
    said = await orgs("verify")
    assert "equal as of position 2" in said.output
    await execute(settings, f"UPDATE organization SET name = 'Other' WHERE id = '{ORG}'")
    said = await orgs("verify", code=1)
    assert f"organization_differs  {ORG} at position 2 name: Acme in journal, Other in organization" in said.output
    assert "`orgs repair` writes the row as the journal has it" in said.output
    found = (await orgs("verify", "--json", code=1)).json
    assert (found["verdict"], found["counts"]) == ("differs", {"organization_differs": 1})
    assert (await orgs("verify", "--at", "1", "--json")).json["position"] == 1
    refused = await orgs("verify", "--at", "7", code=1)
    assert "the journal ends at position 2" in refused.stderr
    planned = await orgs("repair")
    assert "organization_differs" in planned.stdout
    assert "nothing was changed" in planned.stderr
    done = (await orgs("repair", "--execute", "--reason", "changed by hand", "--json")).json
    assert (done["state"], done["counts"]) == ("done", {"repaired": 1})
    await orgs("verify")
    refused = await orgs("repair", code=1)
    assert "nothing that `orgs repair` can mend differs" in refused.stderr


@pytest.mark.usefixtures("history")
async def test_a_process_of_the_role_verifies_again_and_again(settings: Settings) -> None:
    often = settings.model_copy(
        update={
            "operate": settings.operate.model_copy(update={"verify_interval_s": 0.1, "verify_processor_share": 0.9})
        }
    )
    operator, stop = Operator(often), asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    kind = VERIFIED_DIFFERENCES.labels("organization_differs")
    try:
        await until(lambda: VERIFIED_THROUGH._value.get() == 2, timeout_s=60)
        await execute(settings, f"UPDATE organization SET name = 'Other' WHERE id = '{ORG}'")
        await until(lambda: kind._value.get() == 1, timeout_s=60)
        await execute(settings, f"UPDATE organization SET name = 'Acme' WHERE id = '{ORG}'")
        await until(lambda: kind._value.get() == 0, timeout_s=60)
        assert await operator.checks()["verified"]() == "equal as of position 2"
    finally:
        stop.set()
        await asyncio.wait_for(running, 30)


@pytest.mark.usefixtures("history")
async def test_commands_after_the_snapshot_are_left_out(orgs: Orgs, settings: Settings, service: Service) -> None:
    async def go_on(*_: Any) -> None:
        async with connected(settings) as database:
            before = int(await database.fetchval("SELECT position FROM journal_head") or 0)
        await orgs("send", "update", ORG, "--domain", "later.example")
        await wait_until_idle(settings, 30)
        async with connected(settings) as database:
            assert await database.fetchval("SELECT position FROM journal_head") == before + 1

    with probing("verify.after_snapshot", go_on):
        report = await verify(settings, Asked(processes=0))
    assert (report.verdict, report.position) == (Verdict.EQUAL, 2), report.comparisons


@pytest.mark.usefixtures("history")
async def test_processes_read_what_this_one_reads(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "OWN_OFFSETS_MAX", 0)
    report = await verify(settings, Asked(processes=2))
    assert report.verdict is Verdict.EQUAL
    assert [each.checked for each in report.comparisons][3:6] == [2, 2, 1]
