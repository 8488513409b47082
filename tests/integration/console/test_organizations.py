"""Organizations are found by how their names begin, and looked at as they are and as they were."""

import re
from urllib.parse import quote

import pytest
from playwright.async_api import expect

from tests.integration.console.pages import HOSTILE, create, park, unique
from tests.support.browser import Visit
from tests.support.database import fetch

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def test_a_search_finds_by_the_beginning_while_one_types(staff: Visit) -> None:
    name = unique("Borealis")
    await create(staff.site, name)
    await staff.open("/organizations")
    await staff.page.get_by_role("searchbox").press_sequentially(name[:-2].lower())
    await expect(staff.page.get_by_role("link", name=name)).to_be_visible()
    await expect(staff.page).to_have_url(re.compile("q=borealis"))  # to come back to
    await staff.page.get_by_role("link", name=name).click()
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text(name)
    assert not staff.complaints


async def test_a_search_works_without_scripts(staff: Visit) -> None:
    await create(staff.site, name := unique("Boötes"))
    answer = await staff.open(f"/organizations?q={name}")
    assert name in await answer.text()


async def test_a_deleted_one_is_found_by_its_whole_name_or_its_id(staff: Visit) -> None:
    org_id = await create(staff.site, name := unique("Corvus"))
    with staff.site.client("root") as root:
        assert root.delete(f"/v1/orgs/{org_id}").status_code in (200, 204)
    for asked in (name, org_id):
        await staff.open(f"/organizations?q={asked}")
        row = staff.page.get_by_role("row").filter(has_text=name)
        await expect(row).to_contain_text("deleted")
    await row.get_by_role("link").click()
    await expect(staff.page.locator("#state")).to_contain_text("Deleted as of this version")


async def test_the_timeline_shows_each_change_field_by_field_latest_first(staff: Visit) -> None:
    first, second, third = unique("Draco"), unique("Draconis"), unique("Dragon")
    org_id = await create(staff.site, first, second, third)
    await staff.open(f"/organizations/{org_id}")
    changes = staff.page.get_by_role("region", name="Changes").get_by_role("listitem")
    await expect(changes).to_have_count(3)
    await expect(changes.first).to_contain_text("version 3")
    await expect(changes.first.locator("del")).to_contain_text(second)
    await expect(changes.first.locator("ins")).to_contain_text(third)
    await expect(changes.first).to_contain_text("by root")


async def test_the_slider_goes_through_time(staff: Visit) -> None:
    names = [unique("Eridanus"), unique("Equuleus"), unique("Pavo")]
    org_id = await create(staff.site, *names)
    await staff.open(f"/organizations/{org_id}")
    slider = staff.page.get_by_role("slider")
    for version in (2, 1):
        await slider.press("ArrowLeft")
        await expect(staff.page.locator("#state")).to_contain_text(f"Version {version} of 3")
        await expect(staff.page.locator("#state")).to_contain_text(names[version - 1])
    await expect(staff.page).to_have_url(f"{staff.site.url}/console/organizations/{org_id}?version=1")
    await staff.page.reload()
    await expect(staff.page.locator("#state")).to_contain_text(names[0])
    assert not staff.complaints


async def test_a_moment_leads_to_the_version_of_then(staff: Visit) -> None:
    org_id = await create(staff.site, *(names := [unique("Fornax"), unique("Furnace")]))
    await staff.open(f"/organizations/{org_id}?version=1")
    said = await staff.page.locator("#state").inner_text()
    position = said.split("position ")[1].split()[0].replace(",", "")
    await staff.page.get_by_label("As of a time").fill(position)
    await staff.page.get_by_role("button", name="Go there").click()
    await expect(staff.page.locator("#state")).to_contain_text(names[0])
    await staff.page.get_by_label("As of a time").fill("yesterday-ish")
    await staff.page.get_by_role("button", name="Go there").click()
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text("Not understood")


async def test_a_hostile_name_is_only_a_name(staff: Visit) -> None:
    org_id = await create(staff.site, name := unique(HOSTILE), unique("Innocent"))
    parked = await park(staff.site, unique(HOSTILE))
    (head,) = await fetch(staff.site.settings, "SELECT id FROM parked WHERE org_id = $1", parked)
    await staff.open(f"/organizations/{org_id}")
    await expect(staff.page.locator("del")).to_contain_text(name)
    await staff.open(f"/organizations?q={quote(name)}")
    await expect(staff.page.get_by_role("main")).to_contain_text(name)
    await staff.open(f"/parked/records/{head[0]}")
    await staff.page.get_by_label("Why you need to see it").fill(name)
    await staff.page.get_by_role("button", name="Reveal").click()
    await expect(staff.page.get_by_label("Value")).to_contain_text("<script>alert(1)</script>")
    await staff.open("/runs")
    await expect(staff.page.get_by_role("main")).to_contain_text(name)
    assert await staff.page.locator("main script, main img").count() == 0
    assert not staff.complaints
