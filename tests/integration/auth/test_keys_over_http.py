"""Tokens whose keys come from a web server: rotation, outages, and servers that answer badly or hardly."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from org_service.auth.tokens import TokenRejected, Tokens
from org_service.errors import ConfigurationError, RetryError
from org_service.settings import AuthSettings
from tests.support.issuer import AT, ISSUER, ed_key, jwks, rsa_key
from tests.support.key_server import KeyServer
from tests.support.waiting import until

OLD, NEW = ed_key("old"), ed_key("new")


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of whoever runs the tests stands before loopback."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with KeyServer(OLD) as server:
        yield server


@pytest.fixture
async def opening(server: KeyServer) -> AsyncIterator[Callable[..., Tokens]]:
    opened: list[Tokens] = []

    def make(**settings: Any) -> Tokens:
        auth = {"issuer": ISSUER, "jwks_url": server.url, "jwks_retry_s": 0.01, "jwks_timeout_s": 5, **settings}
        opened.append(Tokens(AuthSettings.model_validate(auth)))
        return opened[-1]

    yield make
    for tokens in opened:
        await tokens.close()


async def test_keys_are_fetched_once_for_many_tokens(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    tokens = opening()
    await tokens.start()
    for number in range(50):
        assert await tokens.verify(OLD.token(sub=f"user{number}"), AT) == f"user{number}"
    assert server.requests == 1


async def test_a_rotated_key_is_found_without_a_restart(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    tokens = opening()
    await tokens.start()
    server.hold(OLD, NEW)
    assert await tokens.verify(NEW.token(), AT) == "ann"
    assert await tokens.verify(OLD.token(), AT) == "ann"
    assert server.requests == 2


async def test_a_rotation_in_two_steps_leaves_no_gap(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    tokens = opening(jwks_max_age_s=0.05)
    await tokens.start()
    old, before = OLD.token(exp=int(time.time()) + 600), datetime.now(UTC)
    await tokens.verify(old, before)
    server.hold(OLD, NEW)
    assert await tokens.verify(NEW.token(), AT) == "ann"
    assert tokens.find_known(old, before) == "ann"
    server.hold(NEW)
    await until(lambda: tokens.find_known(old, datetime.now(UTC)) is None)
    with pytest.raises(TokenRejected, match="not one of the issuer's"):
        await tokens.verify(old, datetime.now(UTC))
    assert await tokens.verify(old, before) == "ann", "it was used while the key was listed"
    assert await tokens.verify(NEW.token(), AT) == "ann"


async def test_many_tokens_of_a_new_key_make_one_request(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    tokens = opening(jwks_retry_s=3600)
    await tokens.start()
    server.hold(OLD, NEW)
    users = [f"user{number}" for number in range(100)]
    named = await asyncio.gather(*(tokens.verify(NEW.token(sub=user), AT) for user in users))
    assert named == users
    assert server.requests == 2


async def test_unknown_key_ids_cause_one_request_an_interval(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    tokens = opening(jwks_retry_s=3600)
    await tokens.start()
    made_up = [NEW.called(f"made up {number}").token() for number in range(100)]
    answers = await asyncio.gather(*(tokens.verify(token, AT) for token in made_up), return_exceptions=True)
    assert [str(answer) for answer in answers] == [
        "The token's key is not one of the issuer's, or the token does not name it (kid)."
    ] * 100
    for token in made_up:
        with pytest.raises(RetryError, match="read again soon"):
            await tokens.verify(token, AT)
    assert server.requests == 2


async def test_a_good_token_of_a_new_key_is_not_rejected_after_unknown_key_ids(
    server: KeyServer, opening: Callable[..., Tokens]
) -> None:
    """Rejected for good for up to 10 s after any unknown key id, it would be."""
    tokens = opening(jwks_retry_s=0.3)
    await tokens.start()
    with pytest.raises(TokenRejected, match="not one of the issuer's"):
        await tokens.verify(NEW.called("made up").token(), AT)
    server.hold(OLD, NEW)
    assert await tokens.verify(NEW.token(), AT) == "ann"
    assert server.requests == 3


async def test_no_cache_on_the_way_answers_for_the_issuer(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    await opening().start()
    assert b"cache-control: no-cache\r\n" in server.last_request.lower()


async def test_keys_that_cannot_be_fetched_any_more_end(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    tokens = opening(jwks_stale_max_s=1)
    await tokens.start()
    token = OLD.token(exp=int(time.time()) + 600)
    assert await tokens.verify(token, datetime.now(UTC)) == "ann"
    assert re.match(r"1 key, read [0-5] s ago", await tokens.check())
    await server.stop()
    await until(lambda: tokens.find_known(token, datetime.now(UTC)) is None)
    with pytest.raises(RetryError, match="ConnectError"):
        await tokens.verify(token, datetime.now(UTC))
    with pytest.raises(RetryError, match="tokens wait"):
        await tokens.check()
    await server.start()
    await until(lambda: tokens.find_known(token, datetime.now(UTC)))


async def test_an_outage_affects_no_token_of_a_known_key_and_rejects_no_other(
    server: KeyServer, opening: Callable[..., Tokens]
) -> None:
    tokens = opening(jwks_max_age_s=0.05)
    await tokens.start()
    await server.stop()
    for _ in range(3):
        with pytest.raises(RetryError, match=r"127\.0\.0\.1.*ConnectError"):
            await tokens.verify(NEW.token(), AT)
        assert await tokens.verify(OLD.token(sub="bob"), AT) == "bob"
    server.hold(OLD, NEW)
    await server.start()

    async def user() -> str | None:
        with suppress(RetryError):
            return await tokens.verify(NEW.token(), AT)
        return None

    await until(user, "ann")


async def test_a_silent_server_delays_only_callers_that_need_it_and_not_for_long(
    server: KeyServer, opening: Callable[..., Tokens]
) -> None:
    tokens = opening(jwks_timeout_s=0.5)
    await tokens.start()
    server.silent = True
    waiting = asyncio.create_task(tokens.verify(NEW.token(), AT))
    await server.asked(2)
    assert await tokens.verify(OLD.token(), AT) == "ann"
    assert not waiting.done()
    with pytest.raises(RetryError, match=r"no response within 0\.5 s"):
        await waiting


async def test_a_server_that_answers_too_slowly_counts_as_unavailable(
    server: KeyServer, opening: Callable[..., Tokens]
) -> None:
    tokens = opening(jwks_timeout_s=0.5)
    server.drips = True
    began = time.monotonic()
    with pytest.raises(RetryError, match=r"no response within 0\.5 s"):
        await tokens.start()
    assert time.monotonic() - began < 3
    server.drips = False
    await tokens.start()
    assert await tokens.verify(OLD.token(), AT) == "ann"


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found", "304 Not Modified", "204 No Content"])
async def test_an_error_of_the_server_is_an_outage(
    server: KeyServer, opening: Callable[..., Tokens], status: str
) -> None:
    tokens = opening()
    server.body, server.status = b"", status
    with pytest.raises(RetryError, match=f"the response was {status[:3]}"):
        await tokens.start()


async def test_redirects_are_not_followed(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    async with KeyServer(NEW) as elsewhere:
        server.status, server.headers = "302 Found", f"location: {elsewhere.url}\r\n"
        with pytest.raises(RetryError, match="the response was 302"):
            await opening().start()
        assert elsewhere.requests == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "it is not JSON"),
        (jwks(rsa_key().private_jwk()), "key 1 is a private key"),
        (b'{"keys": []}' + b" " * 1024 * 1024, "it is longer than 1048576 bytes"),
    ],
    ids=["no JSON", "private", "too long"],
)
async def test_a_bad_set_stops_the_start_and_later_leaves_the_good_one(
    server: KeyServer, opening: Callable[..., Tokens], body: bytes, said: str
) -> None:
    tokens, starting = opening(), opening()
    await tokens.start()
    server.body = body
    with pytest.raises(ConfigurationError, match=said):
        await starting.start()
    with pytest.raises(RetryError, match=said):
        await tokens.verify(NEW.token(), AT)
    assert await tokens.verify(OLD.token(), AT) == "ann"


async def test_closing_ends_a_fetch_in_flight(server: KeyServer, opening: Callable[..., Tokens]) -> None:
    tokens = opening()
    await tokens.start()
    server.silent = True
    waiting = asyncio.create_task(tokens.verify(NEW.token(), AT))
    await server.asked(2)
    await tokens.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
