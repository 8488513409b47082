"""A command is followed from its record to its result."""

import pytest
from playwright.async_api import expect

from tests.integration.console.pages import create, unique
from tests.support.browser import Visit

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def test_the_commands_of_an_organization_lead_to_the_way_of_each(staff: Visit) -> None:
    org_id = await create(staff.site, unique("Grus"), unique("Gruis"))
    await staff.open("/trace")
    await staff.page.get_by_role("searchbox").fill(org_id)
    await staff.page.get_by_role("button", name="Follow").click()
    await staff.page.get_by_role("link", name="org.create").click()
    hops = staff.page.get_by_role("listitem").filter(has=staff.page.locator(".what"))
    await expect(hops).to_have_count(7)
    said = await staff.page.locator(".what").all_inner_texts()
    assert said == ["record", "token", "rule", "journal", "event", "state", "result"]
    await expect(staff.page.get_by_role("main")).to_contain_text("applied")
    assert not staff.complaints


async def test_what_nobody_knows_is_said(staff: Visit) -> None:
    await staff.open("/trace?what=0190c5f0-7d1c-7b7e-9d57-00000000dead")
    await expect(staff.page.get_by_role("alert")).to_contain_text("nothing is known of")
    await staff.open("/trace?what=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    await expect(staff.page.get_by_role("alert")).to_contain_text("is no id, no position")
