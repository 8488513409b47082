"""Keys are read again in time, whoever asks, and end where they no longer can be."""

import math
import time

import pytest
from structlog.testing import capture_logs

from org_service.errors import RetryError
from tests.support.issuer import Signer, jwks
from tests.unit.auth.scripted import AWAY, NEW, OLD, Clock, Opened, Scripted, soon, verifies


async def test_keys_are_renewed_without_a_request(opened: Opened) -> None:
    source = Scripted(jwks(OLD), renew_after_s=0.01)
    keys = opened(source)
    await keys.start()
    source.answer = jwks(NEW)
    await source.asked_again()
    await source.asked_again()
    assert verifies(keys, NEW)
    assert opened.removals == 1


async def test_keys_are_renewed_on_time_while_a_requested_read_must_wait(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=3600, renew_after_s=0.05)
    keys = opened(source)
    await keys.start()
    keys.request_read()
    await source.asked_again()
    keys.request_read()
    await source.asked_again()
    await source.asked_again()


async def test_renewing_goes_on_after_an_outage(opened: Opened) -> None:
    source = Scripted(jwks(OLD), renew_after_s=0.01)
    keys = opened(source)
    await keys.start()
    source.answer = AWAY
    with capture_logs() as logs:
        for _ in range(3):
            await source.asked_again()
        source.answer = jwks(OLD)
        await source.asked_again()
        await source.asked_again()
    assert [entry["event"] for entry in logs] == [
        "the token keys cannot be renewed: the last ones stay in force",
        "the token keys are being renewed again",
    ]


async def test_keys_are_renewed_sooner_in_an_outage(opened: Opened) -> None:
    source = Scripted(jwks(OLD), renew_after_s=0.01, retry_s=0.01)
    keys = opened(source)
    await keys.start()
    source.answer = AWAY
    await source.asked_again()
    source.renew_after_s = math.inf
    await source.asked_again()
    await source.asked_again()
    assert source.reads >= 4


async def test_a_defect_does_not_end_the_renewing(opened: Opened) -> None:
    source = Scripted(jwks(OLD), renew_after_s=0.01)
    keys = opened(source)
    await keys.start()
    source.answer = ZeroDivisionError()
    with capture_logs() as logs:
        await source.asked_again()
        await source.asked_again()
    assert logs[0]["event"] == "the token keys cannot be renewed: a defect"
    source.answer = jwks(NEW)
    await source.asked_again()
    await source.asked_again()
    assert verifies(keys, NEW)


@pytest.mark.parametrize(("after", "removals"), [((OLD, NEW), 0), ((NEW,), 1), ((NEW.called("old"),), 1)])
async def test_what_was_verified_with_a_key_is_forgotten_with_it(
    opened: Opened, after: tuple[Signer, ...], removals: int
) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    source.answer = jwks(*after)
    await soon(keys)
    assert opened.removals == removals


async def test_a_withdrawn_key_verifies_what_was_used_before_the_last_read_that_listed_it(
    opened: Opened, clock: Clock
) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    clock.now_s = 1000
    await keys.start()
    clock.now_s = 1100
    await soon(keys)
    clock.now_s = 1200
    source.answer = jwks(NEW)
    await soon(keys)
    assert verifies(keys, OLD, at_s=1100)
    assert not verifies(keys, OLD, at_s=1100.1)
    assert [lasts for _, lasts in keys.find_fitting("old", 1000)] == [False], "nothing is remembered of it"
    assert verifies(keys, NEW, at_s=1000)
    source.answer = jwks(OLD, NEW)
    await soon(keys)
    assert verifies(keys, OLD, at_s=1200)


async def test_keys_that_cannot_be_read_again_end(opened: Opened, clock: Clock) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source, stale_max_s=600)
    clock.now_s = 1000
    await keys.start()
    came_s = time.monotonic()
    source.answer = AWAY
    with capture_logs() as logs:
        clock.now_s = 1599
        with pytest.raises(RetryError):
            await soon(keys)
        assert verifies(keys, OLD)
        assert await keys.check() == (
            "https://issuer.example/jwks.json cannot be read: no answer (ConnectError); 1 key, read 599 s ago, "
            "valid for 1 s more"
        )
        clock.now_s = 1600
        for _ in range(2):
            with pytest.raises(RetryError):
                await soon(keys)
    assert not verifies(keys, OLD)
    assert verifies(keys, OLD, at_s=1599), "what was used before is judged as before"
    assert not keys.were_read_since(came_s), "a token would be rejected"
    with pytest.raises(RetryError, match=r"no answer \(ConnectError\); tokens wait"):
        await keys.check()
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "the token keys cannot be renewed: the last ones stay in force"),
        ("error", "the token keys have expired: tokens wait for new ones"),
    ]
    source.answer = jwks(OLD)
    await soon(keys)
    assert verifies(keys, OLD)
    assert await keys.check() == "1 key, read 0 s ago"
