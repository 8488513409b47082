"""A change on the operators' page comes from a form of ours, of this session, or it isn't made."""

import secrets
from collections.abc import Mapping

import httpx2
import pytest
from playwright.async_api import expect

from org_service.console.requests import HEADERS, digest_of
from tests.support.browser import Visit, keep_session
from tests.support.database import fetch
from tests.support.edge import Site

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="package")]


async def post(site: Site, secret: str, form: Mapping[str, str], headers: Mapping[str, str]) -> httpx2.Response:
    """Sign out by hand: the smallest change there is."""
    async with httpx2.AsyncClient(trust_env=False, cookies={"orgs-console": secret}) as client:
        return await client.post(f"{site.url}/console/sign-out", data=dict(form), headers=dict(headers))


async def token_of(site: Site, secret: str) -> str:
    """The token in the forms of a session."""
    async with httpx2.AsyncClient(trust_env=False, cookies={"orgs-console": secret}) as client:
        page = (await client.get(f"{site.url}/console")).text
    return page.split('name="csrf" value="')[1].split('"')[0]


async def is_signed_in(site: Site, secret: str) -> bool:
    found = await fetch(site.settings, "SELECT 1 FROM console_ticket WHERE digest = $1", digest_of(secret))
    return bool(found)


@pytest.fixture
def secret() -> str:
    return secrets.token_hex(16)


async def test_a_form_of_ours_makes_the_change(site: Site, secret: str) -> None:
    await keep_session(site.settings, "root", secret)
    answer = await post(site, secret, {"csrf": await token_of(site, secret)}, {"origin": site.url})
    assert (answer.status_code, await is_signed_in(site, secret)) == (303, False)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None, "http://127.0.0.1:1", "https://{}"])
async def test_a_change_from_another_origin_is_not_made(site: Site, secret: str, origin: str | None) -> None:
    await keep_session(site.settings, "root", secret)
    headers = {} if origin is None else {"origin": origin.format(site.url.removeprefix("http://"))}
    answer = await post(site, secret, {"csrf": await token_of(site, secret)}, headers)
    assert (answer.status_code, await is_signed_in(site, secret)) == (403, True)


async def test_a_change_without_the_token_of_its_session_is_not_made(site: Site, secret: str) -> None:
    await keep_session(site.settings, "root", secret)
    await keep_session(site.settings, "root", other := secrets.token_hex(16))
    for form in ({}, {"csrf": ""}, {"csrf": await token_of(site, other)}, {"csrf": "é"}):
        answer = await post(site, secret, form, {"origin": site.url})
        assert (answer.status_code, await is_signed_in(site, secret)) == (403, True)


async def test_a_foreign_page_cannot_sign_staff_out(staff: Visit) -> None:
    await staff.open("")
    await staff.page.route("http://evil.example/", lambda route: route.fulfill(
        content_type="text/html",
        body=f'<form method="post" action="{staff.site.url}/console/sign-out"><button>Win a prize</button></form>',
    ))  # fmt: skip
    await staff.page.goto("http://evil.example/")
    await staff.page.get_by_role("button").click()
    await expect(staff.page.get_by_role("heading", level=1)).to_have_text("Overview")  # its cookie was not even sent


async def test_a_link_cannot_make_a_change(site: Site, secret: str) -> None:
    await keep_session(site.settings, "root", secret)
    async with httpx2.AsyncClient(trust_env=False, cookies={"orgs-console": secret}) as client:
        answer = await client.get(f"{site.url}/console/sign-out", params={"csrf": await token_of(site, secret)})
    assert (answer.status_code, await is_signed_in(site, secret)) == (405, True)


async def test_a_form_beyond_its_bounds_is_rejected(site: Site, secret: str) -> None:
    await keep_session(site.settings, "root", secret)
    token = await token_of(site, secret)
    for form in ({"csrf": token, "x": "y" * 20_000}, {"csrf": token} | {f"f{number}": "" for number in range(60)}):
        answer = await post(site, secret, form, {"origin": site.url})
        assert (answer.status_code, await is_signed_in(site, secret)) == (400, True)


@pytest.mark.parametrize("path", ["", "/sign-in", "/nowhere", "/static/console.css", "/live"])
async def test_every_answer_forbids_what_is_inline_or_from_elsewhere(site: Site, secret: str, path: str) -> None:
    await keep_session(site.settings, "root", secret)
    cookies = {} if path == "/sign-in" else {"orgs-console": secret}
    async with httpx2.AsyncClient(trust_env=False, cookies=cookies) as client:
        answer = await client.get(f"{site.url}/console{path}")
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "*" not in policy
    if answer.headers["content-type"].startswith("text/html"):
        assert answer.headers["cache-control"] == "no-store"
        assert not {" style=", " onclick=", "<style", "javascript:", "://"} & {
            each for each in (" style=", " onclick=", "<style", "javascript:") if each in answer.text
        }


async def test_the_api_beside_the_page_still_wants_a_token(site: Site, secret: str) -> None:
    await keep_session(site.settings, "root", secret)
    async with httpx2.AsyncClient(trust_env=False, cookies={"orgs-console": secret}) as client:
        assert (await client.get(f"{site.url}/v1/orgs")).status_code == 401
        assert (await client.get(f"{site.url}/consolex")).status_code == 401
