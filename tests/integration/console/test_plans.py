"""Plans from the page that one is looking at: they say why, change nothing, and lead to their run."""

import asyncio
import secrets
from typing import Any
from uuid import UUID

import pytest
from playwright.async_api import Locator, expect

from org_service.operate import runs
from org_service.operate.parked import DiscardParked
from org_service.operate.parked_selection import ParkedSelection
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.integration.console.pages import create, park, unique
from tests.support.browser import Visit
from tests.support.database import execute, fetch
from tests.support.topics import read_topic

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def planned(visit: Visit) -> Operation:
    """The run that the window shows."""
    await visit.page.wait_for_url("**/console/runs/*")
    return await runs.find(visit.site.settings, UUID(visit.page.url.rpartition("/")[2]))


async def acts_of(settings: Settings, operation: Operation) -> list[tuple[str, str]]:
    found = await fetch(
        settings, "SELECT user_id, act FROM console_act WHERE operation_id = $1 ORDER BY id", operation.id
    )
    return [(row["user_id"], row["act"]) for row in found]


async def form_in(details: Locator, why: str) -> Locator:
    """A form that is opened, with its reason."""
    await details.locator("summary").click()
    await details.get_by_label("Why").fill(why)
    return details


async def run_it(visit: Visit) -> None:
    await visit.page.get_by_role("button", name="Run it").click()
    await expect(visit.page.get_by_role("status").first).to_have_text("done", timeout=15_000)


async def test_a_change_is_undone_from_where_it_is_seen(staff: Visit) -> None:
    org_id = await create(staff.site, first := unique("Aquila"), unique("Aquarius"))
    await staff.open(f"/organizations/{org_id}")
    change = staff.page.get_by_role("region", name="Changes").get_by_role("listitem").first
    form = await form_in(change.locator("details"), "renamed by mistake")
    await form.get_by_role("button", name="This change").click()
    operation = await planned(staff)
    assert (operation.kind, operation.items, operation.reason) == ("undo", 1, "renamed by mistake")
    await run_it(staff)
    assert await acts_of(staff.site.settings, operation) == [("root", "planned"), ("root", "run")]
    await staff.open(f"/organizations/{org_id}")
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text(first)
    assert not staff.complaints


@pytest.mark.parametrize(("button", "earlier"), [("All by root since then", False), ("All by root", True)])
async def test_all_that_an_actor_changed_is_planned_to_be_undone(staff: Visit, button: str, *, earlier: bool) -> None:
    before = await create(staff.site, unique("Caelum"))
    org_id = await create(staff.site, unique("Carina"), unique("Cassiopeia"))
    await staff.open(f"/organizations/{org_id}")
    created = staff.page.get_by_role("region", name="Changes").get_by_role("listitem").last
    form = await form_in(created.locator("details"), "root was not root")
    await form.get_by_role("button", name=button, exact=True).click()
    operation = await planned(staff)
    there = "SELECT 1 FROM organization WHERE deleted_at IS NULL AND id::text = ANY($1)"
    assert len(await fetch(staff.site.settings, there, [before, org_id])) == 2  # nothing was changed
    selection = operation.parameters["selection"]
    assert (selection["actors"], selection["org_ids"]) == (["root"], [])
    since = await fetch(
        staff.site.settings, "SELECT position FROM journal WHERE org_id::text = $1 AND version = 1", org_id
    )
    assert selection["from_position"] == (1 if earlier else since[0][0])
    assert operation.items > 1 if earlier else operation.items == 1


async def test_its_events_are_replayed_to_a_new_topic(staff: Visit) -> None:
    org_id = await create(staff.site, unique("Cepheus"), unique("Cetus"))
    await staff.open(f"/organizations/{org_id}")
    form = await form_in(staff.page.locator("details").filter(has_text="Replay its events"), "lost by billing")
    await form.get_by_role("button", name="To a new topic").click()
    operation = await planned(staff)
    await run_it(staff)
    again = await read_topic(staff.site.settings, operation.facts["topic"])
    assert [(each.key() or b"").decode() for each in again] == [org_id] * 2


async def test_what_a_plan_says_beside_its_numbers_is_seen_by_whoever_runs_it(staff: Visit) -> None:
    org_id = await create(staff.site, unique("Circinus"), unique("Columba"))
    await staff.open(f"/organizations/{org_id}")
    form = await form_in(staff.page.locator("details").filter(has_text="Replay its events"), "lost by all")
    await form.get_by_role("button", name="In place").click()
    notes = staff.page.get_by_role("region", name="Good to know")
    await expect(notes).to_contain_text("in place: every subscriber gets them again")


async def test_a_plan_whose_time_is_over_is_made_again(staff: Visit) -> None:
    settings, org_id = staff.site.settings, await park(staff.site, unique("Crux"))
    tool = await DiscardParked.make(settings, ParkedSelection(org_ids=(org_id,)))
    old, _ = await runs.keep_plan(settings, tool, requested_by="ann", reason="sent twice", rate_per_second_max=7)
    await staff.open(f"/runs/{old.id}")
    await execute(settings, "UPDATE operation SET expires_at = now() WHERE id = $1", old.id)
    await staff.page.get_by_role("button", name="Run it").click()  # of a tab that was left open
    await expect(staff.page.get_by_role("alert")).to_contain_text("It is expired now")
    await staff.page.get_by_role("button", name="Plan it again").click()
    await staff.page.wait_for_url(lambda url: str(old.id) not in url)
    new = await planned(staff)
    assert (new.kind, new.parameters, new.digest) == (old.kind, old.parameters, old.digest)
    assert (new.requested_by, new.reason, new.rate_per_second_max) == ("root", "sent twice", 7)
    await run_it(staff)


async def test_a_form_makes_one_plan_however_often_it_is_sent(staff: Visit) -> None:
    await park(staff.site, unique("Cygnus"))
    await staff.open("/parked")
    await staff.page.get_by_role("link", name="handler raised").click()
    group = staff.page.url.rpartition("/")[2]
    fields: dict[str, Any] = await staff.page.locator("form", has_text="Why").evaluate(
        "form => Object.fromEntries(new FormData(form))"
    )

    async def send(what: str, **changed: str) -> tuple[int, str]:
        form = fields | {"reason": why} | changed
        answer = await staff.context.request.post(
            f"{staff.site.url}/console/plans/{what}", form=form, headers={"origin": staff.site.url}, max_redirects=0
        )
        return answer.status, answer.headers.get("location", "")

    why = f"sent {secrets.token_hex(4)}"
    assert fields["group"] == group
    sent = await asyncio.gather(*(send("release") for _ in range(3)))
    assert {status for status, _ in sent} == {303}
    assert len(set(sent)) == 1
    kept = "SELECT kind FROM operation WHERE reason = $1"
    assert [row[0] for row in await fetch(staff.site.settings, kept, why)] == ["parked release"]
    # Another button of the same form, gone back to, is another plan.
    assert (await send("discard"))[1] not in {address for _, address in sent}
    # Without a reason, a form of ours, or what it is about, there is none.
    for what, changed, status in (
        ("release", {"reason": "  "}, 400),
        ("release", {"csrf": "x"}, 403),
        ("release", {"form": "x"}, 404),
        ("release", {"group": ""}, 400),
        ("release", {"group": "none"}, 409),
        ("nothing", {}, 404),
    ):
        assert (await send(what, **changed))[0] == status
    assert len(await fetch(staff.site.settings, kept, why)) == 2
