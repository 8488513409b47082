"""Tokens whose keys are in a file: replaced, damaged, removed and put back while the service runs."""

import os
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from org_service.auth import key_sources
from org_service.auth.tokens import TokenRejected, Tokens
from org_service.errors import ConfigurationError, RetryError
from org_service.settings import AuthSettings
from tests.support import issuer as issuing
from tests.support.issuer import AT, ISSUER, Signer, ed_key, jwks, rsa_key
from tests.support.waiting import until

OLD, NEW = ed_key("old"), ed_key("new")


def now() -> datetime:
    """When a token is used that `lasting` made."""
    return datetime.now(UTC)


def lasting(signer: Signer) -> bytes:
    """A token that is still good."""
    return signer.token(exp=int(time.time()) + 600)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked at a hundred times a second."""
    monkeypatch.setattr(key_sources, "FILE_CHECK_INTERVAL_S", 0.01)


@pytest.fixture
async def tokens(tmp_path: Path) -> AsyncIterator[Tokens]:
    tokens = Tokens(issuing.auth(tmp_path, OLD))
    await tokens.start()
    yield tokens
    await tokens.close()


class KeyFile:
    """The set of keys in its file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def hold(self, *keys: Signer) -> None:
        """Write a set in place."""
        self.write(jwks(*keys))

    def write(self, content: bytes) -> None:
        """Write anything in place."""
        self._path.write_bytes(content)

    def write_unseen(self, content: bytes, *, in_place: bool) -> None:
        """Write something as long, and leave the file as old as it was."""
        before = self._path.stat()
        assert len(content) == before.st_size
        fresh = self._path if in_place else self._path.with_name("fresh")
        fresh.write_bytes(content)
        os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
        fresh.replace(self._path)

    def age(self, seconds: float) -> None:
        """Make the file older than it is."""
        then = time.time() - seconds
        os.utime(self._path, (then, then))

    def take_away(self) -> None:
        """Move the file out of the way."""
        self._path.rename(self._path.with_name("away"))

    def put_back(self) -> None:
        """Move it back."""
        self._path.with_name("away").rename(self._path)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "jwks.json")


async def test_a_rotated_key_counts_at_once_and_the_old_one_still_does(tokens: Tokens, file: KeyFile) -> None:
    old = OLD.token()
    assert await tokens.verify(old, AT) == "ann"
    file.hold(OLD, NEW)
    assert await tokens.verify(NEW.token(), AT) == "ann"
    assert tokens.find_known(old, AT) == "ann"
    assert await tokens.verify(OLD.token(sub="bob"), AT) == "bob"


async def test_a_removed_key_is_forgotten_with_its_tokens_without_a_request(tokens: Tokens, file: KeyFile) -> None:
    old = lasting(OLD)
    await tokens.verify(old, now())
    file.hold(NEW)
    await until(lambda: tokens.find_known(old, now()) is None)
    with pytest.raises(TokenRejected, match="not one of the issuer's"):
        await tokens.verify(old, now())


async def test_a_removed_key_verifies_what_was_used_before_and_still_nothing_later(
    tokens: Tokens, file: KeyFile
) -> None:
    old, before = lasting(OLD), now()
    await until(lambda: tokens.reads > 1)
    file.hold(NEW)
    await tokens.verify(lasting(NEW), now())
    assert await tokens.verify(old, before) == "ann"
    with pytest.raises(TokenRejected, match="not one of the issuer's"):
        await tokens.verify(old, now())


async def test_a_replaced_key_verifies_no_token_of_the_old_one(tokens: Tokens, file: KeyFile) -> None:
    old = lasting(OLD)
    await tokens.verify(old, now())
    file.hold(NEW.called("old"))
    await until(lambda: tokens.find_known(old, now()) is None)
    with pytest.raises(TokenRejected, match="signature is invalid"):
        await tokens.verify(old, now())


async def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read(tmp_path: Path, file: KeyFile) -> None:
    auth = issuing.auth(tmp_path, OLD)
    file.age(3600)
    tokens = Tokens(auth)
    await tokens.start()
    file.write_unseen(jwks(NEW.called("odd")), in_place=False)
    assert await tokens.verify(NEW.called("odd").token(), AT) == "ann"
    await tokens.close()


async def test_a_file_changed_twice_in_one_tick_of_the_clock_is_read(tokens: Tokens, file: KeyFile) -> None:
    file.write_unseen(jwks(NEW.called("odd")), in_place=True)
    assert await tokens.verify(NEW.called("odd").token(), AT) == "ann"


async def test_a_file_that_did_not_change_is_not_read_again(
    tmp_path: Path, file: KeyFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth = issuing.auth(tmp_path, OLD)
    file.age(3600)
    tokens = Tokens(auth)
    await tokens.start()
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("it was read"))
    with pytest.raises(TokenRejected, match="not one of the issuer's"):
        await tokens.verify(NEW.token(), AT)
    await tokens.close()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (b"", "it is not JSON"),
        (b'{"keys": [', "it is not JSON"),
        (jwks(OLD, rsa_key().private_jwk()), "key 2 is a private key"),
        (jwks(OLD, NEW) + b" " * 1024 * 1024, "it is longer than 1048576 bytes"),
    ],
    ids=["empty", "half", "private", "too long"],
)
async def test_a_damaged_file_leaves_the_keys_valid_until_it_is_repaired(
    tokens: Tokens, file: KeyFile, damage: bytes, why: str
) -> None:
    file.write(damage)
    with pytest.raises(RetryError, match=rf"jwks\.json cannot be fetched or used now: {why}"):
        await tokens.verify(NEW.token(), AT)
    assert await tokens.verify(OLD.token(), AT) == "ann"
    file.hold(OLD, NEW)
    assert await tokens.verify(NEW.token(), AT) == "ann"


async def test_a_temporarily_missing_file_leaves_the_keys_valid(tmp_path: Path, file: KeyFile) -> None:
    auth = issuing.auth(tmp_path, OLD)
    file.age(3600)
    tokens = Tokens(auth)
    await tokens.start()
    file.take_away()
    with pytest.raises(RetryError, match="No such file"):
        await tokens.verify(NEW.token(), AT)
    assert await tokens.verify(OLD.token(), AT) == "ann"
    file.put_back()
    with pytest.raises(TokenRejected, match="not one of the issuer's"):
        await tokens.verify(NEW.token(), AT)
    await tokens.close()


async def test_a_malformed_token_is_rejected_whatever_the_keys(tokens: Tokens, file: KeyFile) -> None:
    file.take_away()
    for token, said in (
        (NEW.token(iss="https://elsewhere.example"), "another issuer"),
        (NEW.token(aud="billing"), "another audience"),
        (NEW.token(exp=1), "expired"),
        (NEW.token({"alg": "none"}), "not signed"),
        (b"garbage", "not a token"),
    ):
        with pytest.raises(TokenRejected, match=said):
            await tokens.verify(token, AT)


async def test_a_token_without_a_key_id_is_rejected_where_keys_have_ids(tokens: Tokens) -> None:
    with pytest.raises(TokenRejected, match=r"does not name it \(kid\)"):
        await tokens.verify(OLD.called(None).token(), AT)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "set ORGS_AUTH__ISSUER to the `iss` of your tokens, and ORGS_AUTH__JWKS_FILE or ORGS_AUTH__JWKS_URL"),
        ({"jwks_file": "jwks.json"}, "set ORGS_AUTH__ISSUER"),
        ({"issuer": ISSUER}, "set ORGS_AUTH__JWKS_FILE or ORGS_AUTH__JWKS_URL"),
        ({"issuer": ISSUER, "jwks_file": "/nowhere/jwks.json"}, "in /nowhere/jwks.json cannot be used: No such file"),
    ],
    ids=["nothing", "no issuer", "no keys", "no file"],
)
async def test_nothing_is_open_by_default(settings: dict[str, str], said: str) -> None:
    tokens = Tokens(AuthSettings.model_validate(settings))
    with pytest.raises(ConfigurationError, match=said):
        await tokens.start()
    await tokens.close()
