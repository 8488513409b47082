"""Tokens by client credentials, from a real HTTP server: fresh ones, asked for once, whatever the issuer does."""

import asyncio
import base64
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from org_events.publishing import ClientCredentials, TokenRefused, TokenUnavailable
from tests.support.token_server import TokenServer


class Clock:
    """Set by the test."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[TokenServer]:
    async with TokenServer() as issuer:
        yield issuer


@pytest.fixture
def clock() -> Clock:
    return Clock()


def credentials_of(issuer: TokenServer, clock: Clock, **options: Any) -> ClientCredentials:
    return ClientCredentials(issuer.url, "billing", "s3cret", clock=clock, **options)


async def settled(credentials: ClientCredentials, token: str) -> None:
    """Ask until the request in the background has brought this one."""
    async with asyncio.timeout(10):
        while await credentials() != token:
            await asyncio.sleep(0.01)


async def test_a_token_is_asked_for_once_however_many_want_it(issuer: TokenServer, clock: Clock) -> None:
    credentials = credentials_of(issuer, clock)
    assert set(await asyncio.gather(*(credentials() for _ in range(50)))) == {"token-1"}
    assert await credentials() == "token-1"
    assert len(issuer.requests) == 1


async def test_a_request_is_as_the_rfc_says(issuer: TokenServer, clock: Clock) -> None:
    plain = ClientCredentials(issuer.url, "a b:ü", "p%ss+", scope="x y", audience="orgs", clock=clock)
    await plain()
    await ClientCredentials(issuer.url, "billing", "s3cret", secret_in_body=True)()
    (headers, form), (headers_2, form_2) = issuer.requests
    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"a+b%3A%C3%BC:p%25ss%2B"
    assert form == {"grant_type": ["client_credentials"], "scope": ["x y"], "audience": ["orgs"]}
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in headers_2
    assert form_2 == {"grant_type": ["client_credentials"], "client_id": ["billing"], "client_secret": ["s3cret"]}


async def test_nobody_waits_for_a_new_token_while_the_former_is_good(issuer: TokenServer, clock: Clock) -> None:
    credentials = credentials_of(issuer, clock)
    await credentials()
    clock.now += 239
    assert await credentials() == "token-1"
    assert len(issuer.requests) == 1
    issuer.may_answer.clear()
    clock.now += 2  # 59 s before its end
    assert [await credentials() for _ in range(10)] == ["token-1"] * 10
    await issuer.arrived(2)
    issuer.may_answer.set()
    await settled(credentials, "token-2")
    assert len(issuer.requests) == 2


async def test_a_short_life_is_used_to_two_thirds(issuer: TokenServer, clock: Clock) -> None:
    issuer.members["expires_in"] = "30"
    credentials = credentials_of(issuer, clock)
    await credentials()
    clock.now += 19
    assert await credentials() == "token-1"
    clock.now += 2
    await credentials()
    await settled(credentials, "token-2")
    clock.now += 27.5  # nine tenths are over: it might be used up when the broker has the command
    assert await credentials() == "token-3"


async def test_a_token_lives_from_the_moment_it_was_asked_for(issuer: TokenServer, clock: Clock) -> None:
    issuer.may_answer.clear()
    credentials = credentials_of(issuer, clock)
    waiting = asyncio.create_task(credentials())
    await issuer.arrived(1)
    clock.now += 295  # the answer says 300, and was long under way
    issuer.may_answer.set()
    assert await waiting == "token-1"
    assert await credentials() == "token-2"


@pytest.mark.parametrize("members", [{}, {"expires_in": None}, {"expires_in": -1}, {"expires_in": "soon"}])
async def test_a_token_of_unknown_life_is_taken_for_a_short_one(
    issuer: TokenServer, clock: Clock, members: dict[str, Any]
) -> None:
    issuer.members = members
    credentials = credentials_of(issuer, clock)
    await credentials()
    clock.now += 39
    assert await credentials() == "token-1"
    clock.now += 16
    assert await credentials() == "token-2"


async def test_a_refresh_that_fails_is_no_error_while_the_former_token_is_good(
    issuer: TokenServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "org_events")  # whatever a test before this one has set
    credentials = credentials_of(issuer, clock)
    await credentials()
    issuer.status = 503
    clock.now += 250
    assert await credentials() == "token-1"
    await issuer.arrived(2)
    async with asyncio.timeout(10):
        while "the former is used" not in caplog.text:
            await asyncio.sleep(0.01)
    assert [await credentials() for _ in range(10)] == ["token-1"] * 10
    assert len(issuer.requests) == 2  # and it isn't asked again at once
    clock.now += 41
    with pytest.raises(TokenUnavailable, match="status 503"):
        await credentials()
    clock.now += 3
    issuer.status = 200
    assert await credentials() == "token-4"


async def test_a_failure_is_not_asked_for_again_at_once(issuer: TokenServer, clock: Clock) -> None:
    issuer.status = 500
    credentials = credentials_of(issuer, clock)
    for _ in range(5):
        with pytest.raises(TokenUnavailable, match="try again later"):
            await credentials()
    assert len(issuer.requests) == 1
    issuer.status = 200
    clock.now += 2
    assert await credentials() == "token-2"


async def test_who_gives_up_waiting_leaves_the_request_to_the_others(issuer: TokenServer, clock: Clock) -> None:
    issuer.may_answer.clear()
    credentials = credentials_of(issuer, clock)
    first, second = asyncio.create_task(credentials()), asyncio.create_task(credentials())
    await issuer.arrived(1)
    first.cancel()
    await asyncio.wait({first})
    issuer.may_answer.set()
    assert (first.cancelled(), await second, len(issuer.requests)) == (True, "token-1", 1)


@pytest.mark.parametrize(
    ("status", "members", "message"),
    [
        (401, {"error": "invalid_client"}, "status 401, 'invalid_client'. Check client_id and client_secret."),
        (
            400,
            {"error": "invalid_scope", "error_description": "orgs:x?"},
            "status 400, 'invalid_scope', 'orgs:x?'. Check scope.",
        ),
        (400, {"error": "unauthorized_client"}, "Allow this client the grant client_credentials, at the issuer."),
        (404, {}, "status 404. Check token_url, client_id and client_secret."),
        (302, {}, "status 302. Check token_url"),
        (200, {"access_token": ""}, "has none in access_token. Check token_url."),
        (200, {"access_token": "a\nb"}, "has none in access_token. Check token_url."),
        (200, {"token_type": "mac"}, "gives one of type 'mac', the service accepts Bearer."),
    ],
)
async def test_a_refusal_says_what_to_check_and_no_secret(
    issuer: TokenServer, clock: Clock, status: int, members: dict[str, Any], message: str
) -> None:
    issuer.status, issuer.members = status, members
    issuer.headers = f"location: {issuer.url}2\r\n" if status == 302 else ""
    with pytest.raises(TokenRefused) as caught:
        await credentials_of(issuer, clock)()
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(issuer.requests) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"[" * 100_000, b"x" * 1_000_000])
async def test_an_answer_that_is_no_token_is_a_refusal(issuer: TokenServer, clock: Clock, body: bytes) -> None:
    issuer.body = body
    with pytest.raises(TokenRefused, match="Check token_url"):
        await credentials_of(issuer, clock)()


async def test_an_issuer_that_is_silent_or_away_is_unavailable(issuer: TokenServer, clock: Clock) -> None:
    issuer.may_answer.clear()
    with pytest.raises(TokenUnavailable, match=rf"{issuer.url}: no answer in time\. Nothing was sent"):
        await credentials_of(issuer, clock, timeout_s=0.2)()
    away = ClientCredentials("http://127.0.0.1:1/token", "billing", "s3cret")
    with pytest.raises(TokenUnavailable, match=r"http://127\.0\.0\.1:1/token: .+ Nothing was sent"):
        await away()


@pytest.mark.parametrize("url", ["", "issuer.example/token", "ftp://issuer.example", "https://"])
def test_an_address_that_is_none_is_an_error_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="must be an http or https URL"):
        ClientCredentials(url, "billing", "s3cret")


def test_a_secret_that_would_travel_in_the_open_is_worth_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ClientCredentials("http://127.0.0.1:1/token", "billing", "s3cret")
        assert not caplog.records
        ClientCredentials("http://issuer.example/token", "billing", "s3cret")
    assert "issuer.example over http: anyone on the network path can read it" in caplog.text
    assert "s3cret" not in caplog.text


_WITHOUT_HTTP = """
import asyncio, sys
sys.modules["httpx2"] = None  # an import of it fails
from org_events.publishing import ClientCredentials
try:
    asyncio.run(ClientCredentials("https://issuer.example/token", "a", "b")())
except ImportError as error:
    print(error)
"""


def test_without_the_extra_the_error_names_it_and_nobody_else_needs_it() -> None:
    ended = subprocess.run([sys.executable, "-c", _WITHOUT_HTTP], capture_output=True, text=True, check=True)
    assert ended.stdout == 'ClientCredentials needs an HTTP client: pip install "org-events[oauth]"\n'
