"""No page shows anything of an erased organization; the erasure is planned, approved and run on these pages."""

import secrets
from collections.abc import Sequence
from uuid import UUID

import httpx2
import pytest
from playwright.async_api import Browser, expect

from org_events.commands import UpdateOrganization
from org_service.operate import runs
from org_service.operate.changes import Selection
from org_service.operate.undo import Undo
from tests.integration.console.pages import create, unique
from tests.integration.operate.parking import apply, discard, failing_for, record
from tests.support.browser import visiting
from tests.support.database import fetch
from tests.support.edge import Site, add_staff
from tests.support.erasing import ADDRESS, CANARY, DOMAIN, NAME, holds_canary
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def plant(site: Site) -> str:
    """A canary in changes, a rejected and a parked command, and two runs; deleted in the end."""
    taken = unique("Vela")
    await create(site, taken)
    org_id = await create(site, NAME)
    with site.client("root") as root:
        address = f"/v1/orgs/{org_id}"
        assert root.patch(address, json={"domain": DOMAIN, "primary_address": ADDRESS}).status_code == 200
        assert root.patch(address, json={"name": taken}).status_code == 409
    with failing_for([UUID(org_id)]):
        await apply(site.settings, record(site.settings, UpdateOrganization(org_id=UUID(org_id), name=f"{NAME} 2")))
    await discard(site.settings, org_ids=(UUID(org_id),))
    tool = await Undo.make(site.settings, Selection(org_ids=(UUID(org_id),)))
    await runs.keep_plan(site.settings, tool, requested_by="ann", reason=f"{NAME} wants it")
    with site.client("root") as root:
        assert root.delete(f"/v1/orgs/{org_id}").status_code == 204
    return org_id


async def pages_of(site: Site, org_id: str) -> Sequence[str]:
    """Every page that could show something of it."""
    of = f"/organizations/{org_id}"
    versions = (await fetch(site.settings, "SELECT version FROM organization WHERE id::text = $1", org_id))[0][0]
    commands = await fetch(site.settings, "SELECT command_id FROM journal WHERE org_id::text = $1", org_id)
    records = await fetch(site.settings, "SELECT id FROM parked WHERE org_id::text = $1", org_id)
    kept = await fetch(site.settings, "SELECT id FROM operation")
    return [
        *("", "/live", "/organizations", f"/organizations?q={CANARY[:4]}", f"/organizations?q={org_id}", of),
        *(f"{of}{part}?version={each + 1}" for each in range(versions) for part in ("", "/state")),
        *(f"/trace/found?what={each}" for each in (org_id, *(row[0] for row in commands))),
        *("/parked", *(f"/parked/records/{row[0]}" for row in records)),
        *("/runs", *(f"/runs/{row[0]}" for row in kept)),
    ]


async def showing(site: Site, secret: str, pages: Sequence[str]) -> set[str]:
    """The pages that show the canary."""
    found: set[str] = set()
    async with httpx2.AsyncClient(trust_env=False, timeout=30, cookies={"orgs-console": secret}) as client:
        for path in pages:
            answer = await client.get(f"{site.url}/console{path}")
            assert answer.status_code == 200, path
            found |= {path} if holds_canary(answer.content) else set()
    return found


async def test_an_erased_organization_is_on_no_page(browser: Browser, site: Site) -> None:
    org_id, secret = await plant(site), secrets.token_hex(16)
    await add_staff(site.settings, "ann")
    async with visiting(browser, site) as root, visiting(browser, site) as ann:
        await root.sign_in_as("root", secret)
        await ann.sign_in_as("ann", secrets.token_hex(16))
        of = f"/organizations/{org_id}"
        before = await showing(site, secret, await pages_of(site, org_id))
        assert before >= {f"/organizations?q={org_id}", of, f"{of}?version=2", f"{of}/state?version=1", "/runs"}
        assert any(path.startswith("/runs/") for path in before)

        await root.open(of)
        erasing = root.page.locator("details").filter(has_text="Erase it for good")
        await erasing.locator("summary").click()
        await erasing.get_by_label("Why").fill(f"{NAME} asked for it")
        await erasing.get_by_role("button", name="Plan to erase it now").click()
        await expect(root.page.get_by_role("main")).to_contain_text("you asked for it, so somebody else does")
        await expect(root.page.get_by_role("main")).to_contain_text("There is no way back: no restore, no undo.")
        await ann.page.goto(root.page.url)
        await ann.page.get_by_role("button", name="Approve").click()
        await ann.page.get_by_role("button", name="Run it").click()
        await expect(ann.page.get_by_role("status").first).to_have_text("done", timeout=20_000)

        await root.open("")  # which shows what was seen last, a moment ago
        await expect(root.page.get_by_role("region", name="Service")).to_be_visible(timeout=20_000)
        await expect(root.page.get_by_role("main")).not_to_contain_text(NAME, timeout=20_000)
        # A look that began before the erasure may end after it; the next one knows.
        await until(lambda: showing(site, secret, ("", "/live")), set())
        assert await showing(site, secret, await pages_of(site, org_id)) == set()
        await root.open(of)
        await expect(root.page.get_by_role("heading", level=1)).to_have_text("Erased organization")
        await expect(root.page.locator("details")).to_have_count(0)  # there is nothing to plan with it any more
        assert not root.complaints
