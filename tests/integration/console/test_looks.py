"""Every page can be used by everybody: in light and dark, on a phone, with a keyboard, read aloud.

With ORGS_SCREENSHOTS=FOLDER each page is photographed, to be looked at.
"""

import os
import secrets
from pathlib import Path
from uuid import UUID

import pytest
from playwright.async_api import Browser, expect

from org_service.operate import runs
from org_service.operate.operation import Tool
from org_service.operate.parked import ReleaseParked
from org_service.operate.parked_selection import ParkedSelection, name_group
from org_service.store import parked_queues
from org_service.store.database import Database
from tests.integration.console.pages import create, park, unique
from tests.support.browser import Visit, visiting
from tests.support.database import execute, fetch
from tests.support.edge import Site

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]

LOOKS = {"light": {}, "dark": {"dark": True}, "phone": {"phone": True}}


@pytest.fixture(scope="module")
def paths() -> dict[str, str]:
    """Of every page, by name; made with the first test that wants them."""
    return {}


async def every_page(site: Site, paths: dict[str, str]) -> dict[str, str]:
    if paths:
        return paths
    org_id = await create(site, unique("Northwind Traders"), unique("Northwind"), unique("Northwind Trading Company"))
    deleted = await create(site, unique("Tailspin Toys"))
    with site.client("root") as root:
        assert root.delete(f"/v1/orgs/{deleted}").status_code == 204
    parked = await park(site, unique("Contoso"), unique("Contoso Ltd"))
    head = (await fetch(site.settings, "SELECT min(id) FROM parked WHERE org_id = $1", parked))[0][0]
    command = (await fetch(site.settings, "SELECT command_id FROM journal WHERE org_id::text = $1 LIMIT 1", org_id))[0][
        0
    ]
    async with Database(site.settings.database, "reader", direct=True).connect() as conn:
        group = next(name_group(each) for each in await parked_queues.group(conn) if not each.exhausted)
    tool = await ReleaseParked.make(site.settings, ParkedSelection(org_ids=(parked,)))
    kept, _ = await runs.keep_plan(site.settings, tool, requested_by="ann", reason="mended in 1.4.2")
    paths |= {
        "overview": "",
        "organizations": "/organizations",
        "organization": f"/organizations/{org_id}?version=2",
        "organization-deleted": f"/organizations/{deleted}",
        "trace": f"/trace?what={command}",
        "trace-organization": f"/trace?what={org_id}",
        "parked": "/parked",
        "parked-group": f"/parked/groups/{group}",
        "parked-record": f"/parked/records/{head}",
        "runs": "/runs",
        "run": f"/runs/{kept.id}",
        "run-expired": f"/runs/{await expired(site, tool)}?was=planned",
        "problem": "/nowhere",
        "sign-in": "/sign-in?said=expired",  # the last: nobody is signed in there
    }
    return paths


async def expired(site: Site, tool: Tool) -> UUID:
    """A plan whose time is over."""
    kept, _ = await runs.keep_plan(site.settings, tool, requested_by="ann", reason="mended in 1.4.3")
    await execute(site.settings, "UPDATE operation SET expires_at = now() WHERE id = $1", kept.id)
    return kept.id


async def settle(visit: Visit, name: str) -> None:
    """Wait until a page has all that comes into it."""
    if name == "overview":
        await expect(visit.page.get_by_role("img", name="Throughput")).to_be_visible()
        await expect(
            visit.page.get_by_role("region", name="Subscribers", exact=True).get_by_role("row").nth(1)
        ).to_be_visible()
    if name.startswith("trace"):
        await expect(visit.page.locator("main .panel")).to_be_visible()


@pytest.mark.parametrize("look", LOOKS)
async def test_axe_finds_nothing_serious_and_nothing_is_wider_than_the_window(
    browser: Browser, site: Site, paths: dict[str, str], look: str
) -> None:
    folder = os.environ.get("ORGS_SCREENSHOTS")
    found: dict[str, list[str]] = {}
    async with visiting(browser, site, **LOOKS[look]) as visit:
        await visit.sign_in_as("root", secrets.token_hex(16))
        for name, path in (await every_page(site, paths)).items():
            if name == "sign-in":
                await visit.context.clear_cookies()
            await visit.open(path)
            await settle(visit, name)
            if folder:
                await visit.page.screenshot(path=Path(folder) / f"{name}-{look}.png", full_page=True)
            for details in await visit.page.locator("details").all():  # forms that open where they are wanted
                await details.evaluate("each => each.open = true")
            violations = [] if look == "phone" else await visit.find_violations()  # the elements are the same
            if await visit.is_scrolled_sideways():
                violations.append("it is wider than the window")
            if violations:
                found[name] = violations
        assert not found
        assert [each for each in visit.complaints if "404" not in each] == []


async def test_everything_is_reached_with_the_keyboard_and_shows_it_has_the_focus(
    browser: Browser, site: Site, paths: dict[str, str]
) -> None:
    async with visiting(browser, site) as visit:
        await visit.sign_in_as("root", secrets.token_hex(16))
        await visit.open((await every_page(site, paths))["run"])
        reached: list[str] = []
        for _ in range(20):
            await visit.page.keyboard.press("Tab")
            name, outline = await visit.page.evaluate(
                "[document.activeElement.innerText, getComputedStyle(document.activeElement).outlineWidth]"
            )
            reached.append(name)
            assert outline == "3px", name
            if name == "Cancel the plan":
                break
        assert reached[0] == "To the content"
        assert [each for each in reached if each in ("Runs", "Sign out", "Run it", "Cancel the plan")] == [
            "Runs", "Sign out", "Runs", "Run it", "Cancel the plan",
        ]  # fmt: skip


async def test_the_live_part_keeps_the_focus(staff: Visit) -> None:
    await staff.open("")
    link = staff.page.get_by_role("link", name="All groups")
    await link.focus()
    shown = await staff.page.locator("main time").first.inner_text()
    await expect(staff.page.locator("main time").first).not_to_have_text(shown)
    await expect(link).to_be_focused()
    assert not staff.complaints


async def test_the_overview_shows_commands_as_they_flow(staff: Visit) -> None:
    await staff.open("")
    journal = staff.page.get_by_role("region", name="Service")
    await expect(journal).to_contain_text("position")
    before = await journal.inner_text()
    await create(staff.site, unique("Orion"), *(unique("Orionis") for _ in range(5)))
    await expect(journal).not_to_have_text(before)
    await expect(staff.page.locator("polyline").first).to_be_visible()
    assert not staff.complaints


async def test_the_overview_says_what_is_parked_and_leads_there(staff: Visit) -> None:
    await park(staff.site, unique("Pyxis"))
    await staff.open("")
    await staff.page.get_by_role("link", name="handler raised").click()
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text("handler raised")
