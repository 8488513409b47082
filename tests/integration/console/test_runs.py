"""Runs: exactly what was planned, by two people where it is much, paused, cancelled and watched."""

import secrets
from uuid import UUID

import pytest
from playwright.async_api import Browser, expect

from org_service.operate import runs
from org_service.operate.parked import DiscardParked
from org_service.operate.parked_selection import ParkedSelection
from org_service.store.operations import NEEDS_APPROVAL
from tests.integration.console.pages import park, unique
from tests.support.browser import Visit, visiting
from tests.support.database import execute, fetch
from tests.support.edge import Site, add_staff

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def plan(site: Site, *names: str, rate: float | None = None, reason: str = "a test") -> UUID:
    """A plan of `ann` to discard one parked record for each name."""
    orgs = [await park(site, unique(name)) for name in names]
    tool = await DiscardParked.make(site.settings, ParkedSelection(org_ids=tuple(orgs)))
    kept, _ = await runs.keep_plan(site.settings, tool, requested_by="ann", reason=reason, rate_per_second_max=rate)
    return kept.id


async def test_a_plan_that_needs_it_is_approved_by_a_second_person_who_is_kept(
    staff: Visit, browser: Browser, site: Site
) -> None:
    run_id = await plan(site, "Lynx")
    await execute(
        site.settings,
        f"UPDATE operation SET parameters = parameters || '{{\"{NEEDS_APPROVAL}\": true}}' WHERE id = $1",
        run_id,
    )
    await add_staff(site.settings, "ann")
    async with visiting(browser, site) as ann:
        await ann.sign_in_as("ann", secrets.token_hex(16))
        await ann.open(f"/runs/{run_id}")
        await expect(ann.page.get_by_role("main")).to_contain_text("you asked for it, so somebody else does")
        await expect(ann.page.get_by_role("button", name="Approve")).to_have_count(0)
        await expect(ann.page.get_by_role("button", name="Run it")).to_have_count(0)
        await staff.open(f"/runs/{run_id}")
        await staff.page.get_by_role("button", name="Approve").click()
        await expect(staff.page.get_by_role("button", name="Run it")).to_be_visible()
        await expect(ann.page.get_by_role("button", name="Run it")).to_be_visible()  # by itself
    kept = await fetch(site.settings, "SELECT approved_by FROM operation WHERE id = $1", run_id)
    acts = await fetch(site.settings, "SELECT user_id, act FROM console_act WHERE operation_id = $1", run_id)
    assert ([row[0] for row in kept], [tuple(row) for row in acts]) == (["root"], [("root", "approved")])


async def test_a_run_is_watched_paused_resumed_and_cancelled(staff: Visit) -> None:
    run_id = await plan(staff.site, *(f"Lyra {number}" for number in range(6)), rate=1.0)
    await staff.open(f"/runs/{run_id}")
    await staff.page.get_by_role("button", name="Run it").click()
    state = staff.page.get_by_role("status").first
    await expect(state).to_have_text("running", timeout=15_000)
    await staff.page.get_by_role("button", name="Pause").click()
    await expect(state).to_have_text("paused", timeout=15_000)
    await staff.page.get_by_role("button", name="Resume").click()
    await expect(state).to_have_text("running", timeout=15_000)
    await staff.page.get_by_role("button", name="Cancel").click()
    await expect(state).to_have_text("cancelled", timeout=15_000)
    acts = await fetch(staff.site.settings, "SELECT act FROM console_act WHERE operation_id = $1 ORDER BY id", run_id)
    assert [row[0] for row in acts] == ["run", "paused", "run", "cancelled"]
    assert not staff.complaints


async def test_a_plan_whose_facts_moved_is_not_run_and_says_so(staff: Visit) -> None:
    run_id = await plan(staff.site, "Mensa")
    await execute(staff.site.settings, "UPDATE operation SET digest = 'another' WHERE id = $1", run_id)
    await staff.open(f"/runs/{run_id}")
    await staff.page.get_by_role("button", name="Run it").click()
    await expect(staff.page.get_by_role("main")).to_contain_text("nothing was done, because", timeout=15_000)


async def test_a_run_needs_a_reason(staff: Visit) -> None:
    run_id = await plan(staff.site, "Musca", reason="")
    await staff.open(f"/runs/{run_id}")
    await staff.page.get_by_role("button", name="Run it").click()
    assert (await runs.find(staff.site.settings, run_id)).state == "planned"
    await staff.page.get_by_label("Why", exact=True).fill("now there is one")
    await staff.page.get_by_role("button", name="Run it").click()
    await expect(staff.page.get_by_role("status").first).to_have_text("done", timeout=15_000)


async def test_an_old_tab_resumes_stops_and_begins_nothing(staff: Visit) -> None:
    run_id = await plan(staff.site, "Norma")
    acts = "SELECT act FROM console_act WHERE operation_id = $1"
    for state, button in (("paused", "Run it"), ("paused", "Cancel the plan"), ("cancelled", "Run it")):
        await execute(staff.site.settings, "UPDATE operation SET state = 'planned' WHERE id = $1", run_id)
        await staff.open(f"/runs/{run_id}")
        await execute(staff.site.settings, "UPDATE operation SET state = $2 WHERE id = $1", run_id, state)
        await staff.page.get_by_role("button", name=button).click()
        said = f"Nothing was done: where you clicked, this was still planned. It is {state} now."
        await expect(staff.page.get_by_role("alert")).to_have_text(said)
        assert (await runs.find(staff.site.settings, run_id)).state == state
        assert await fetch(staff.site.settings, acts, run_id) == []


async def test_a_double_click_begins_a_run_once_and_shows_it(staff: Visit) -> None:
    run_id = await plan(staff.site, "Phoenix")
    await staff.open(f"/runs/{run_id}")
    await staff.page.get_by_role("button", name="Run it").dblclick()
    await expect(staff.page.get_by_role("status").first).to_have_text("done", timeout=15_000)
    await staff.page.go_back()
    await expect(staff.page.get_by_role("status").first).to_have_text("done")
    assert not staff.complaints


async def test_what_is_watched_stays_under_the_pointer_and_survives_a_proxy_without_a_service(staff: Visit) -> None:
    run_id = await plan(staff.site, *(f"Pictor {number}" for number in range(4)), rate=0.4)
    await staff.open(f"/runs/{run_id}")
    await staff.page.get_by_role("button", name="Run it").click()
    pause, done = staff.page.get_by_role("button", name="Pause"), staff.page.locator("#progress strong").first
    await pause.evaluate("button => button.seen = true")
    await expect(done).to_have_text("1", timeout=15_000)
    async with staff.page.expect_response(lambda answer: answer.status == 502):
        await staff.page.route(
            "**/progress?*", lambda route: route.fulfill(status=502, body="<p>Bad gateway</p>"), times=1
        )
    await expect(done).not_to_have_text("1", timeout=15_000)
    assert await pause.evaluate("button => button.seen")
    await expect(staff.page.get_by_role("main")).not_to_contain_text("Bad gateway")
    await staff.page.get_by_role("button", name="Cancel").click()
    await expect(staff.page.get_by_role("status").first).to_have_text("cancelled", timeout=15_000)


async def test_a_run_of_the_command_line_is_in_the_list(staff: Visit) -> None:
    run_id = await plan(staff.site, "Octans")
    await staff.open("/runs")
    await staff.page.locator(f"#run-{run_id}").click()
    await expect(staff.page.get_by_role("main")).to_contain_text(str(run_id))
