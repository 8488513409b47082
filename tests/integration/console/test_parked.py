"""What is parked is grouped, looked at, and released or discarded by a plan that is run."""

import pytest
from playwright.async_api import expect

from org_service.operate.parked_contents import MASK
from tests.integration.console.pages import park, unique
from tests.support.browser import Visit
from tests.support.database import fetch

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def head_of(staff: Visit, org_id: object) -> int:
    return (await fetch(staff.site.settings, "SELECT min(id) FROM parked WHERE org_id = $1", org_id))[0][0]


async def test_a_group_is_released_by_a_plan_that_lands_on_its_run(staff: Visit) -> None:
    org_id = await park(staff.site, unique("Hydra"), last := unique("Hydrae"))
    await staff.open("/parked")
    await staff.page.get_by_role("link", name="handler raised").click()
    await staff.page.get_by_label("Why", exact=True).fill("mended in 1.4.2")
    await staff.page.get_by_role("button", name="Plan a release").click()
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text("Parked release")
    await expect(staff.page.get_by_role("main")).to_contain_text("Nothing was changed yet")
    assert await fetch(staff.site.settings, "SELECT 1 FROM parked WHERE org_id = $1 AND state = 'open'", org_id)
    await staff.page.get_by_role("button", name="Run it").click()
    await expect(staff.page.get_by_role("status").first).to_have_text("done")
    await expect(staff.page.get_by_role("main")).to_contain_text("mended in 1.4.2")
    await staff.open(f"/organizations/{org_id}")
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text(last)
    assert not staff.complaints


async def test_a_record_is_discarded_by_a_plan_and_its_queue_goes_on(staff: Visit) -> None:
    org_id = await park(staff.site, unique("Indus"))
    await staff.open(f"/parked/records/{await head_of(staff, org_id)}")
    await staff.page.get_by_label("Why", exact=True).fill("sent by mistake")
    await staff.page.get_by_role("button", name="Plan to discard").click()
    await staff.page.get_by_role("button", name="Run it").click()
    await expect(staff.page.get_by_role("status").first).to_have_text("done")
    found = await fetch(staff.site.settings, "SELECT state FROM parked WHERE org_id = $1", org_id)
    assert [row[0] for row in found] == ["discarded"]


async def test_what_a_record_holds_is_masked_until_somebody_says_why(staff: Visit) -> None:
    org_id = await park(staff.site, name := unique("Lacerta"))
    head = await head_of(staff, org_id)
    answer = await staff.open(f"/parked/records/{head}")
    assert name not in await answer.text()
    await expect(staff.page.get_by_label("Value")).to_contain_text(MASK)
    await staff.page.get_by_label("Why you need to see it").fill("a complaint of its owner")
    await staff.page.get_by_role("button", name="Reveal").click()
    await expect(staff.page.get_by_label("Value")).to_contain_text(name)
    await staff.open(f"/parked/records/{head}/reveal")  # as a browser does that is sent back there
    await expect(staff.page.get_by_label("Value")).to_contain_text(MASK)
    kept = await fetch(
        staff.site.settings,
        "SELECT o.requested_by, o.reason, a.user_id, a.act FROM operation o JOIN console_act a ON a.operation_id = o.id"
        " WHERE o.kind = 'parked reveal' AND o.parameters ->> 'parked_id' = $1",
        str(head),
    )
    assert [tuple(row) for row in kept] == [("root", "a complaint of its owner", "root", "revealed")]


async def test_a_reveal_without_a_reason_shows_nothing(staff: Visit) -> None:
    org_id = await park(staff.site, name := unique("Lepus"))
    head = await head_of(staff, org_id)
    await staff.open(f"/parked/records/{head}")
    await staff.page.get_by_label("Why you need to see it").fill("   ")
    await staff.page.get_by_role("button", name="Reveal").click()
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text("Say why")
    assert name not in await staff.page.content()
    assert not await fetch(
        staff.site.settings, "SELECT 1 FROM operation WHERE parameters ->> 'parked_id' = $1", str(head)
    )
