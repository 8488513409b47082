"""When keys are read, how often, how long they count, and what an outage does to them."""

import asyncio
import time
from itertools import pairwise

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from org_service.auth import keys as module
from org_service.auth.key_sources import make_source
from org_service.auth.keys import Keys
from org_service.errors import ConfigurationError, RetryError
from org_service.settings import AuthSettings
from tests.support.issuer import jwks
from tests.unit.auth.scripted import AWAY, NEW, OLD, Clock, Opened, Scripted, soon, verifies


async def test_a_new_key_is_found_without_a_restart(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    source.answer = jwks(OLD, NEW)
    await soon(keys)
    assert verifies(keys, NEW)
    assert verifies(keys, OLD)
    assert (source.reads, opened.removals) == (2, 0)


async def test_known_keys_are_not_asked_for_again(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    for _ in range(100):
        assert verifies(keys, OLD)
    await asyncio.sleep(0)
    assert source.reads == 1


async def test_keys_are_read_once_an_interval_however_often_they_are_requested(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=0.1)
    keys = opened(source)
    await keys.start()

    async def ask() -> None:
        while source.reads < 5:
            keys.request_read()
            await soon(keys)

    await asyncio.gather(*(ask() for _ in range(50)))
    wanted = source.read_at[1:5]
    assert all(later - earlier >= 0.1 for earlier, later in pairwise(wanted)), wanted


async def test_many_callers_that_need_a_new_key_cause_one_read(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    source.answer = jwks(OLD, NEW)
    source.open.clear()
    source.asked.clear()
    asking = [asyncio.create_task(soon(keys)) for _ in range(50)]
    await asyncio.wait_for(source.asked.wait(), 10)
    source.open.set()
    await asyncio.gather(*asking)
    assert verifies(keys, NEW)
    assert source.reads == 2


async def test_a_read_in_progress_brings_keys_but_rejects_no_token_that_arrived_during_it(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=0.3)
    keys = opened(source)
    await keys.start()
    source.answer = jwks(OLD, NEW)
    source.open.clear()
    source.asked.clear()
    keys.request_read()
    await asyncio.wait_for(source.asked.wait(), 10)
    came_s = time.monotonic()
    asking = asyncio.create_task(soon(keys))
    await asyncio.sleep(0)
    source.open.set()
    await asking
    assert verifies(keys, NEW)
    assert not keys.were_read_since(came_s)
    await soon(keys)
    assert keys.were_read_since(came_s)


async def test_a_caller_that_gives_up_does_not_affect_the_others(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    source.answer = jwks(NEW)
    source.open.clear()
    source.asked.clear()
    first, second = (asyncio.create_task(soon(keys)) for _ in range(2))
    await asyncio.wait_for(source.asked.wait(), 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.open.set()
    await second
    assert verifies(keys, NEW)
    assert source.reads == 2


async def test_a_caller_that_would_wait_too_long_fails_at_once(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=3600)
    keys = opened(source)
    await keys.start()
    await soon(keys)
    with pytest.raises(RetryError, match="read again soon"):
        await soon(keys)
    assert source.reads == 2


async def test_the_number_of_callers_waiting_for_a_read_is_bounded(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    source.open.clear()
    source.asked.clear()
    waiting = [asyncio.create_task(soon(keys)) for _ in range(2)]
    await asyncio.wait_for(source.asked.wait(), 10)
    with pytest.raises(RetryError, match="read again soon"):
        await soon(keys)
    source.open.set()
    await asyncio.gather(*waiting)
    await soon(keys)


async def test_an_outage_leaves_known_keys_valid_and_causes_no_extra_reads(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=0.2)
    keys = opened(source)
    await keys.start()
    source.answer = AWAY
    with pytest.raises(RetryError, match=r"issuer\.example.*no answer"):
        await soon(keys)
    assert verifies(keys, OLD)
    for _ in range(3):
        with pytest.raises(RetryError):
            await soon(keys)
    assert source.reads == 2
    source.answer = jwks(OLD, NEW)
    await source.asked_again()
    assert verifies(keys, NEW), "it is asked again though nobody wants it"
    assert source.read_at[2] - source.read_at[1] >= 0.2


@pytest.mark.parametrize(
    "bad",
    [b"<html>", jwks(NEW.private_jwk()), jwks(NEW, {"kty": "oct", "k": "AAAA"})],
    ids=["no JSON", "private", "oct"],
)
async def test_a_bad_set_leaves_the_last_good_one_valid(opened: Opened, bad: bytes) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    came_s = time.monotonic()
    source.answer = bad
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(RetryError):
                await soon(keys)
    assert verifies(keys, OLD)
    assert not keys.were_read_since(came_s), "a token would be rejected"
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "the token keys cannot be renewed: the last ones stay in force")
    ]
    assert opened.removals == 0


async def test_an_empty_set_removes_the_keys_but_rejects_no_token(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    came_s = time.monotonic()
    source.answer = jwks()
    with capture_logs() as logs:
        with pytest.raises(RetryError, match="it has no usable key"):
            await soon(keys)
        source.answer = AWAY
        with pytest.raises(RetryError):
            await soon(keys)
        source.answer = jwks()
        with pytest.raises(RetryError):
            await soon(keys)
    assert [(entry["log_level"], entry["event"], entry["keys"]) for entry in logs] == [
        ("info", "the token keys changed", 0),
        *[("error", "no token key is in force any more: tokens wait for one", 0)] * 3,  # each for another reason
    ]
    assert opened.removals == 1
    assert not verifies(keys, OLD)
    assert not keys.were_read_since(came_s)
    with pytest.raises(RetryError, match="it has no usable key; tokens wait"):
        await keys.check()


async def test_before_the_first_keys_the_log_does_not_claim_that_old_ones_are_kept(opened: Opened) -> None:
    keys = opened(Scripted(AWAY))
    with capture_logs() as logs, pytest.raises(RetryError):
        await keys.start()
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "the token keys cannot be read yet: tokens wait for them")
    ]


async def test_reads_of_keys_are_counted_and_the_last_good_one_is_shown(opened: Opened, clock: Clock) -> None:
    def shown() -> list[float]:
        names = [("orgs_keys_reads_total", {"what": "read"}), ("orgs_keys_reads_total", {"what": "failed"})]
        return [REGISTRY.get_sample_value(name, labels) or 0 for name, labels in names]

    source, before = Scripted(jwks(OLD)), shown()
    keys = opened(source)
    clock.now_s = 1000
    await keys.start()
    clock.now_s = 2000
    source.answer = AWAY
    for _ in range(2):
        with pytest.raises(RetryError):
            await soon(keys)
    assert shown() == [before[0] + 1, before[1] + 2]
    assert REGISTRY.get_sample_value("orgs_keys_read_timestamp_seconds") == 1000


async def test_keys_that_were_never_read_are_unavailable(opened: Opened) -> None:
    keys = opened(Scripted(AWAY))
    with pytest.raises(RetryError, match="not read yet"):
        await keys.check()


async def test_a_start_without_keys_can_be_tried_again(opened: Opened) -> None:
    source = Scripted(AWAY)
    keys = opened(source)
    with pytest.raises(RetryError, match=r"cannot be fetched from https://issuer\.example/jwks\.json: no answer"):
        await keys.start()
    source.answer = jwks(OLD)
    await keys.start()
    assert verifies(keys, OLD)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"<html>", "it is not JSON"),
        (jwks(), "it has no usable key"),
        (jwks({"kty": "RSA", "use": "enc"}), "it has no usable key; key 1: it is not for signatures with RS256"),
        (jwks(OLD.private_jwk()), "key 1 is a private key"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "No such file or directory"),
    ],
)
async def test_a_start_with_bad_keys_says_what_is_wrong(opened: Opened, answer: bytes | Exception, why: str) -> None:
    keys = opened(Scripted(answer))
    with pytest.raises(ConfigurationError) as stopped:
        await keys.start()
    assert str(stopped.value).startswith(f"The token keys in {Scripted.name} cannot be used: {why}")


async def test_skipped_keys_are_reported_once(opened: Opened) -> None:
    source = Scripted(jwks(OLD, {"kty": "AKP"}))
    keys = opened(source)
    with capture_logs() as logs:
        await keys.start()
        await soon(keys)
        await soon(keys)
    assert [entry["why"] for entry in logs if entry["event"] == "token keys were skipped"] == [
        ("key 2: its type is not RSA, EC P-256 or OKP Ed25519",)
    ]


async def test_closing_stops_renewal_and_may_be_done_twice() -> None:
    source = Scripted(jwks(OLD), renew_after_s=0.01)
    keys = Keys(source, lambda: None, stale_max_s=86_400)
    await keys.start()
    source.open.clear()
    await source.asked_again()
    await keys.close()
    await keys.close()
    assert source.closed
    assert [task.get_name() for task in asyncio.all_tasks() if "keys of tokens" in task.get_name()] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "set ORGS_AUTH__JWKS_FILE or ORGS_AUTH__JWKS_URL, to where the issuer's public keys are"),
        ({"jwks_file": "a", "jwks_url": "https://issuer.example"}, "not both"),
        ({"jwks_url": "issuer.example/jwks.json"}, "must be an http or https URL"),
        ({"jwks_url": "file:///etc/passwd"}, "must be an http or https URL"),
        ({"jwks_url": "https://"}, "must be an http or https URL"),
        ({"jwks_url": "https://[::1"}, "must be an http or https URL"),
        ({"jwks_url": "https://issuer.example:port/"}, "must be an http or https URL"),
    ],
)
def test_keys_must_come_from_somewhere(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make_source(AuthSettings.model_validate(settings))


def test_secrets_in_a_url_are_not_shown() -> None:
    source = make_source(AuthSettings(jwks_url="https://me:sesame@issuer.example:8443/jwks.json?key=sesame"))
    assert source.name == "https://issuer.example:8443/jwks.json"


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://issuer.example/jwks.json", True),
        ("https://issuer.example/jwks.json", False),
        ("http://127.0.0.1:1/jwks.json", False),
        ("http://localhost/jwks.json", False),
    ],
)
def test_keys_over_plain_http_cause_a_warning(url: str, warned: bool) -> None:
    with capture_logs() as logs:
        make_source(AuthSettings(jwks_url=url))
    assert [entry["log_level"] for entry in logs] == ["warning"] * warned
