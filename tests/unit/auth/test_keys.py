"""When keys are read, how often, and what an outage does to them."""

import asyncio
import math
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from org_service.auth import keys as module
from org_service.auth.keys import Keys, source_of
from org_service.errors import RetryError, StopError
from org_service.settings import Auth
from tests.support.issuer import Signer, ed_key, jwks

OLD, NEW, NEWER = ed_key("old"), ed_key("new"), ed_key("newer")
AWAY = RetryError("no answer (ConnectError)")


class Scripted:
    """A source that says what the test wants, and counts how often it was asked."""

    name = "https://issuer.example/jwks.json"

    def __init__(self, answer: bytes | Exception, *, retry_s: float = 10, renew_after_s: float = math.inf) -> None:
        self.answer: bytes | Exception = answer
        self.retry_s = retry_s
        self.renew_after_s = renew_after_s
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.closed = False

    async def read(self) -> bytes | None:
        self.reads += 1
        self.asked.set()
        await self.open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        self.closed = True

    async def asked_again(self) -> None:
        """Wait until it has been asked once more, and has answered."""
        self.asked.clear()
        await asyncio.wait_for(self.asked.wait(), 10)
        await asyncio.sleep(0)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


class Opened:
    """Keys that end with the test."""

    def __init__(self) -> None:
        self.all: list[Keys] = []
        self.removals = 0

    def __call__(self, source: Scripted) -> Keys:
        keys = Keys(source, self.count)
        self.all.append(keys)
        return keys

    def count(self) -> None:
        self.removals += 1


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    opened = Opened()
    yield opened
    for keys in opened.all:
        await keys.close()


async def public(keys: Keys, signer: Signer) -> bool:
    """Whether the signer's key is in force."""
    key = await keys.get(signer.kid)
    return key is not None and key.public == signer.private.public_key()


async def test_a_new_key_is_found_without_a_restart(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    source.answer = jwks(OLD, NEW)
    assert await public(keys, NEW)
    assert await public(keys, OLD)
    assert (source.reads, opened.removals) == (2, 0)


async def test_known_keys_are_not_asked_for_again(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    for _ in range(100):
        await keys.get("old")
    assert source.reads == 1


async def test_made_up_key_ids_do_not_wear_the_issuer_out(opened: Opened, clock: Clock) -> None:
    source = Scripted(jwks(OLD), retry_s=10)
    keys = opened(source)
    await keys.start()
    for number in range(100):
        assert await keys.get(f"made up {number}") is None
    assert source.reads == 2
    clock.now_s += 9.9
    assert await keys.get("made up") is None
    assert source.reads == 2
    clock.now_s += 0.1
    assert await keys.get("made up") is None
    assert source.reads == 3


async def test_that_a_key_was_unknown_is_not_held_against_it(opened: Opened, clock: Clock) -> None:
    source = Scripted(jwks(OLD), retry_s=10)
    keys = opened(source)
    await keys.start()
    assert await keys.get("new") is None
    source.answer = jwks(OLD, NEW)
    clock.now_s += 10
    assert await public(keys, NEW)


async def test_many_who_need_a_new_key_ask_once(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=0)
    keys = opened(source)
    await keys.start()
    source.answer = jwks(OLD, NEW)
    source.open.clear()
    asking = [asyncio.create_task(public(keys, NEW)) for _ in range(50)]
    await asyncio.wait_for(source.asked.wait(), 10)
    source.open.set()
    assert await asyncio.gather(*asking) == [True] * 50
    assert source.reads == 2


async def test_a_renewal_in_hand_is_waited_for_whenever_it_was_looked_last(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=3600, renew_after_s=0.01)
    keys = opened(source)
    await keys.start()
    assert await keys.get("new") is None
    source.answer = jwks(OLD, NEW)
    source.open.clear()
    await source.asked_again()
    asking = asyncio.create_task(public(keys, NEW))
    await asyncio.sleep(0)
    source.open.set()
    assert await asking


async def test_one_who_gives_up_takes_nothing_from_the_others(opened: Opened) -> None:
    source = Scripted(jwks(OLD))
    keys = opened(source)
    await keys.start()
    source.answer = jwks(NEW)
    source.open.clear()
    source.asked.clear()
    first, second = (asyncio.create_task(public(keys, NEW)) for _ in range(2))
    await asyncio.wait_for(source.asked.wait(), 10)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    source.open.set()
    assert await second
    assert source.reads == 2


async def test_an_outage_leaves_known_keys_in_force_and_refuses_no_other(opened: Opened, clock: Clock) -> None:
    source = Scripted(jwks(OLD), retry_s=10)
    keys = opened(source)
    await keys.start()
    source.answer = AWAY
    with pytest.raises(RetryError, match=r"issuer\.example.*no answer"):
        await keys.get("new")
    assert await public(keys, OLD)
    with pytest.raises(RetryError):
        await keys.get("new")
    assert source.reads == 2, "an outage is no reason to ask more often"
    source.answer = jwks(OLD, NEW)
    clock.now_s += 10
    assert await public(keys, NEW)


@pytest.mark.parametrize(
    "bad",
    [b"<html>", jwks(NEW.private_jwk()), jwks(NEW, {"kty": "oct", "k": "AAAA"})],
    ids=["no JSON", "private", "oct"],
)
async def test_a_bad_set_leaves_the_last_good_one_in_force(opened: Opened, bad: bytes) -> None:
    source = Scripted(jwks(OLD), retry_s=0)
    keys = opened(source)
    await keys.start()
    source.answer = bad
    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(RetryError):
                await keys.get("new")
    assert await public(keys, OLD)
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", "the keys of tokens can't be renewed: those at hand stay in force")
    ]
    assert opened.removals == 0


async def test_an_emptied_set_takes_the_keys_away_but_refuses_nobody(opened: Opened) -> None:
    source = Scripted(jwks(OLD), retry_s=0)
    keys = opened(source)
    await keys.start()
    source.answer = jwks()
    with pytest.raises(RetryError):
        await keys.get("new")
    assert opened.removals == 1
    with pytest.raises(RetryError, match="no key in it is of use"):
        await keys.get("old")


async def test_keys_are_renewed_though_nobody_asks(opened: Opened) -> None:
    source = Scripted(jwks(OLD), renew_after_s=0.01)
    keys = opened(source)
    await keys.start()
    source.answer = jwks(NEW)
    await source.asked_again()
    await source.asked_again()
    reads = source.reads
    assert await public(keys, NEW)
    assert opened.removals == 1
    assert source.reads == reads, "it was known already"


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
        "the keys of tokens can't be renewed: those at hand stay in force",
        "the keys of tokens are renewed again",
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
    assert logs[0]["event"] == "the keys of tokens can't be renewed: a defect"
    source.answer = jwks(NEW)
    await source.asked_again()
    await source.asked_again()
    assert await public(keys, NEW)


@pytest.mark.parametrize(("after", "removals"), [((OLD, NEW), 0), ((NEW,), 1), ((NEW.called("old"),), 1)])
async def test_what_was_verified_with_a_key_is_forgotten_with_it(
    opened: Opened, after: tuple[Signer, ...], removals: int
) -> None:
    source = Scripted(jwks(OLD), retry_s=0)
    keys = opened(source)
    await keys.start()
    source.answer = jwks(*after)
    assert await keys.get("unknown") is None
    assert opened.removals == removals


async def test_a_start_without_keys_can_be_tried_again(opened: Opened) -> None:
    source = Scripted(AWAY)
    keys = opened(source)
    with pytest.raises(RetryError, match=r"can't be had from https://issuer\.example/jwks\.json: no answer"):
        await keys.start()
    source.answer = jwks(OLD)
    await keys.start()
    assert await public(keys, OLD)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"<html>", "it is no JSON"),
        (jwks(), "no key in it is of use"),
        (jwks({"kty": "RSA", "use": "enc"}), "no key in it is of use; key 1: it is not for signatures with RS256"),
        (jwks(OLD.private_jwk()), "key 1 is a private key"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "No such file or directory"),
    ],
)
async def test_a_start_with_bad_keys_says_what_is_wrong(opened: Opened, answer: bytes | Exception, why: str) -> None:
    keys = opened(Scripted(answer))
    with pytest.raises(StopError) as stopped:
        await keys.start()
    assert str(stopped.value).startswith(f"The keys of tokens in {Scripted.name} can't be used: {why}")


async def test_keys_passed_over_are_told_once(opened: Opened) -> None:
    source = Scripted(jwks(OLD, {"kty": "AKP"}), retry_s=0)
    keys = opened(source)
    with capture_logs() as logs:
        await keys.start()
        await keys.get("unknown")
        await keys.get("unknown")
    assert [entry["why"] for entry in logs if entry["event"] == "keys of tokens were passed over"] == [
        ("key 2: its type is none of RSA, EC P-256, OKP Ed25519",)
    ]


async def test_closing_ends_the_renewing_and_may_be_done_twice() -> None:
    source = Scripted(jwks(OLD), renew_after_s=0.01)
    keys = Keys(source, lambda: None)
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
        ({}, "set ORGS_AUTH__JWKS_FILE or ORGS_AUTH__JWKS_URL, where the issuer's public keys are"),
        ({"jwks_file": "a", "jwks_url": "https://issuer.example"}, "not both"),
        ({"jwks_url": "issuer.example/jwks.json"}, "must be an http or https URL"),
        ({"jwks_url": "file:///etc/passwd"}, "must be an http or https URL"),
        ({"jwks_url": "https://"}, "must be an http or https URL"),
        ({"jwks_url": "https://[::1"}, "must be an http or https URL"),
        ({"jwks_url": "https://issuer.example:port/"}, "must be an http or https URL"),
    ],
)
def test_keys_must_come_from_somewhere(settings: dict[str, str], said: str) -> None:
    with pytest.raises(StopError, match=said):
        source_of(Auth.model_validate(settings))


def test_secrets_in_a_url_are_not_shown() -> None:
    source = source_of(Auth(jwks_url="https://me:sesame@issuer.example:8443/jwks.json?key=sesame"))
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
def test_keys_over_plain_http_are_warned_of(url: str, warned: bool) -> None:
    with capture_logs() as logs:
        source_of(Auth(jwks_url=url))
    assert [entry["log_level"] for entry in logs] == ["warning"] * warned
