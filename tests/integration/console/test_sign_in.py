"""Who gets in to the operators' page, and how: the issuer, a one-time link, nobody else."""

import secrets
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from playwright.async_api import Browser, expect

from org_service.console.requests import digest_of
from org_service.domain.reasons import TicketKind
from org_service.store import console
from org_service.store.database import Database
from tests.support.browser import Visit, keep_session, visiting
from tests.support.database import execute, fetch
from tests.support.edge import Site
from tests.support.provider import Provider

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def names_of_cookies(visit: Visit) -> set[str | None]:
    return {each.get("name") for each in await visit.context.cookies()}


@pytest.fixture(autouse=True)
def _everybody_is_who_they_were(provider: Provider) -> None:
    provider.user = "root"
    provider.claims.clear()
    provider.held = None


async def test_the_issuer_signs_staff_in_and_they_are_where_they_wanted_to_be(stranger: Visit) -> None:
    await stranger.open("/runs?last=5")
    await expect(stranger.page).to_have_url(f"{stranger.site.url}/console/sign-in?return=/console/runs%3Flast%3D5")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page).to_have_url(f"{stranger.site.url}/console/runs?last=5")
    await expect(stranger.page.get_by_role("banner")).to_contain_text("root")
    assert not stranger.complaints


async def test_a_second_user_who_is_not_staff_sees_nothing(stranger: Visit, provider: Provider) -> None:
    provider.user = "mallory"
    await stranger.open("")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Not for you")
    answer = await stranger.open("/live")
    assert answer.status == 403
    assert "Journal" not in await answer.text()


async def test_who_stops_being_staff_is_shut_out_at_once(stranger: Visit) -> None:
    await execute(stranger.site.settings, "INSERT INTO staff VALUES ('temp')")
    await stranger.sign_in_as("temp", secrets.token_hex(16))
    assert (await stranger.open("")).status == 200
    await execute(stranger.site.settings, "DELETE FROM staff WHERE user_id = 'temp'")
    assert (await stranger.open("")).status == 403


async def test_an_expired_session_goes_to_sign_in_with_a_message_and_comes_back(stranger: Visit) -> None:
    await stranger.sign_in_as("root", secret := secrets.token_hex(16))
    await stranger.open("/trace")
    await execute(
        stranger.site.settings,
        "UPDATE console_ticket SET expires_at = now() WHERE digest = $1",
        digest_of(secret),
    )
    await stranger.page.get_by_role("link", name="Runs").click()
    await expect(stranger.page.get_by_role("status")).to_contain_text("Your session is over")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page).to_have_url(f"{stranger.site.url}/console/runs")


async def test_a_live_page_whose_session_expires_goes_to_sign_in_by_itself(stranger: Visit) -> None:
    await stranger.sign_in_as("root", secret := secrets.token_hex(16))
    await stranger.open("")
    await execute(stranger.site.settings, "DELETE FROM console_ticket WHERE digest = $1", digest_of(secret))
    await expect(stranger.page).to_have_url(f"{stranger.site.url}/console/sign-in?return=/console&said=expired")


async def test_signing_out_ends_the_session_for_whoever_kept_the_cookie(staff: Visit) -> None:
    await staff.open("")
    kept = {each.get("name", ""): each.get("value", "") for each in await staff.context.cookies()}
    await staff.page.get_by_role("button", name="Sign out").click()
    await expect(staff.page.get_by_role("status")).to_have_text("You are signed out.")
    async with httpx2.AsyncClient(trust_env=False, cookies=kept) as client:
        assert (await client.get(f"{staff.site.url}/console")).status_code == 303


async def test_a_link_signs_in_once(stranger: Visit) -> None:
    secret = secrets.token_urlsafe()
    async with Database(stranger.site.settings.database, "operate", direct=True).begin() as conn:
        await console.add_ticket(conn, digest_of(secret), TicketKind.LINK, "root", 60)
    await stranger.open(f"/sign-in/link?secret={secret}")
    await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert (await stranger.open(f"/sign-in/link?secret={secret}")).status == 403


async def test_a_session_is_no_link(stranger: Visit) -> None:
    await keep_session(stranger.site.settings, "root", "a session's secret", timedelta(minutes=1))
    assert (await stranger.open("/sign-in/link?secret=a%20session's%20secret")).status == 403


async def test_an_id_token_that_is_not_for_this_sign_in_lets_nobody_in(stranger: Visit, provider: Provider) -> None:
    provider.claims["nonce"] = "another"
    await stranger.open("")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Sign-in failed")
    assert "orgs-console" not in await names_of_cookies(stranger)


@pytest.mark.parametrize("under_way", [False, True])
async def test_a_code_of_another_browser_lets_nobody_in(
    stranger: Visit, browser: Browser, site: Site, provider: Provider, *, under_way: bool
) -> None:
    provider.held = []
    await stranger.open("")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await stranger.page.wait_for_url("**/held")
    async with visiting(browser, site) as victim:
        if under_way:  # with a state of their own
            await victim.open("/sign-in/begin")
        await victim.page.goto(provider.held[0])
        await expect(victim.page.get_by_role("heading", level=1)).to_have_text("Not your sign-in")
        assert "orgs-console" not in await names_of_cookies(victim)
    code = dict(parse_qsl(urlsplit(provider.held[0]).query))["code"]
    assert code in provider.codes  # it was not even exchanged


async def test_a_second_tab_that_waits_for_a_sign_in_goes_on_with_that_of_the_first(stranger: Visit) -> None:
    tab = await stranger.context.new_page()
    await tab.goto(f"{stranger.site.url}/console/runs")
    await stranger.open("/trace")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Trace")
    kept = await stranger.context.cookies()
    await tab.get_by_role("link", name="Sign in at the issuer").click()
    await expect(tab.get_by_role("heading", level=1)).to_have_text("Runs")
    assert await stranger.context.cookies() == kept  # so the forms of the first one still count


async def test_cookies_are_out_of_reach_of_scripts_and_other_sites(stranger: Visit) -> None:
    await stranger.open("")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Overview")
    cookies = await stranger.context.cookies(f"{stranger.site.url}/console")
    kept = [(each.get("name"), each.get("httpOnly"), each.get("sameSite")) for each in cookies]
    assert kept == [("orgs-console", True, "Lax")]
    assert await stranger.page.evaluate("document.cookie") == ""
    assert await stranger.context.cookies(f"{stranger.site.url}/v1/orgs") == []


async def test_sign_ins_are_kept_and_no_secret_is(stranger: Visit) -> None:
    before = await fetch(stranger.site.settings, "SELECT id FROM console_act WHERE act = 'signed_in'")
    await stranger.open("")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page.get_by_role("heading", level=1)).to_have_text("Overview")
    kept = await fetch(stranger.site.settings, "SELECT user_id FROM console_act WHERE act = 'signed_in'")
    assert len(kept) == len(before) + 1
    secret = (await stranger.context.cookies())[0].get("value")
    assert secret
    tables = await fetch(
        stranger.site.settings, "SELECT t::text FROM console_ticket t UNION SELECT a::text FROM console_act a"
    )
    assert not any(secret in row[0] for row in tables)


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/console/../v1", "/consolex", "/console\\evil", "javascript:alert(1)"],
)
async def test_a_sign_in_leads_to_no_other_site(stranger: Visit, target: str) -> None:
    await stranger.page.goto(f"{stranger.site.url}/console/sign-in?return={target}")
    await stranger.page.get_by_role("link", name="Sign in at the issuer").click()
    await expect(stranger.page.get_by_role("banner")).to_contain_text("root")
    assert stranger.page.url.startswith(f"{stranger.site.url}/console")
