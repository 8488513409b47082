"""The local stack's issuer: made once, kept, and believed by the service."""

import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from org_local import Issuer, LocalStackError
from org_service.auth.tokens import TokenRejected, Tokens
from org_service.settings import AuthSettings


def settings(issuer: Issuer, **more: str) -> AuthSettings:
    return AuthSettings.model_validate({"issuer": issuer.name, "jwks_file": str(issuer.jwks_file), **more})


async def user_of(token: str, auth: AuthSettings, at: datetime | None = None) -> str:
    tokens = Tokens(auth)
    await tokens.start()
    try:
        return await tokens.verify(token.encode(), at or datetime.now(UTC))
    finally:
        await tokens.close()


async def test_the_service_accepts_its_tokens(tmp_path: Path) -> None:
    issuer = Issuer.open(tmp_path)
    assert await user_of(issuer.token("ann"), settings(issuer)) == "ann"
    assert await user_of(issuer.token("ann", audience="mine"), settings(issuer, audience="mine")) == "ann"
    with pytest.raises(TokenRejected, match="another audience"):
        await user_of(issuer.token("ann"), settings(issuer, audience="mine"))


async def test_a_token_is_valid_from_its_beginning_for_as_long_as_asked(tmp_path: Path) -> None:
    issuer = Issuer.open(tmp_path)
    noon = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    token = issuer.token("ann", ttl_s=60, issued_s=noon.timestamp())
    auth = settings(issuer, leeway_s="0")
    assert await user_of(token, auth, noon) == "ann"
    assert await user_of(token, auth, noon + timedelta(seconds=59)) == "ann"
    with pytest.raises(TokenRejected, match="expired"):
        await user_of(token, auth, noon + timedelta(seconds=60))
    with pytest.raises(TokenRejected, match="not valid yet"):
        await user_of(token, auth, noon - timedelta(seconds=1))


async def test_an_issuer_is_made_once_and_kept(tmp_path: Path) -> None:
    first = Issuer.open(tmp_path / "data")
    token, public = first.token("ann"), first.jwks_file.read_bytes()
    again = Issuer.open(tmp_path / "data")
    assert again.jwks_file.read_bytes() == public
    assert await user_of(token, settings(again)) == "ann"
    assert await user_of(Issuer.load(tmp_path / "data").token("bob"), settings(first)) == "bob"


async def test_rotated_keys_leave_old_tokens_valid(tmp_path: Path) -> None:
    issuer = Issuer.open(tmp_path)
    tokens = Tokens(settings(issuer))
    await tokens.start()
    before = issuer.token("ann")
    folders = (tmp_path, tmp_path / "other")
    Issuer.open(folders[1])
    keys = [key for folder in folders for key in json.loads((folder / "issuer.json").read_text())["keys"]]
    (tmp_path / "issuer.json").write_text(json.dumps({"keys": keys}))
    issuer = Issuer.open(tmp_path)
    after = issuer.token("ann")
    assert before.split(".")[0] != after.split(".")[0], "it signs with the old key"
    assert len(json.loads(issuer.jwks_file.read_bytes())["keys"]) == 2
    now = datetime.now(UTC)
    assert [await tokens.verify(token.encode(), now) for token in (before, after)] == ["ann", "ann"]
    assert Issuer.open(tmp_path).token("ann").split(".")[0] == after.split(".")[0]
    await tokens.close()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_can_read_the_key(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Issuer.open(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("*.json")}
    assert modes == {"issuer.json": 0o600, "jwks.json": 0o644}


def test_a_key_readable_by_others_gets_stricter_permissions(tmp_path: Path) -> None:
    Issuer.open(tmp_path)
    (tmp_path / "issuer.json").chmod(0o644)
    Issuer.open(tmp_path)
    assert stat.S_IMODE((tmp_path / "issuer.json").stat().st_mode) == 0o600


def test_the_published_set_holds_public_keys_only(tmp_path: Path) -> None:
    (key,) = json.loads(Issuer.open(tmp_path).jwks_file.read_bytes())["keys"]
    assert set(key) == {"kty", "crv", "use", "alg", "kid", "x"}
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")


async def test_a_published_set_that_was_lost_is_written_again(tmp_path: Path) -> None:
    issuer = Issuer.open(tmp_path)
    token = issuer.token("ann")
    issuer.jwks_file.unlink()
    assert await user_of(token, settings(Issuer.open(tmp_path))) == "ann"


def test_files_left_by_an_interrupted_start_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "issuer.new").write_text("half")
    Issuer.open(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["issuer.json", "issuer.lock", "jwks.json"]


def test_processes_that_open_it_at_once_get_the_same_issuer(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from org_local import Issuer\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(Issuer.open(Path(sys.argv[1])).token('ann', issued_s=1))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "data")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert set(answers) == {Issuer.load(tmp_path / "data").token("ann", issued_s=1) + "\n"}


def test_a_folder_without_an_issuer_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="contains no token issuer: `orgs up` creates it"):
        Issuer.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "\x00"])
def test_a_damaged_key_is_reported_and_never_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "issuer.json").write_text(content)
    for opens in (Issuer.open, Issuer.load):
        with pytest.raises(LocalStackError, match=r"issuer\.json is damaged: remove it"):
            opens(tmp_path)
    assert (tmp_path / "issuer.json").read_text() == content


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalStackError, match="cannot be used: File exists"):
        Issuer.open(tmp_path / "file")


async def test_a_withdrawn_key_verifies_nothing_any_more_and_a_new_one_signs(tmp_path: Path) -> None:
    issuer = Issuer.open(tmp_path)
    stolen = issuer.token("ann")
    issuer.withdraw()
    with pytest.raises(TokenRejected):
        await user_of(stolen, settings(issuer))
    assert await user_of(issuer.token("ann"), settings(issuer)) == "ann"
    assert await user_of(Issuer.load(tmp_path).token("ann"), settings(issuer)) == "ann"
    assert stat.S_IMODE((tmp_path / "issuer.json").stat().st_mode) == 0o600
