"""`orgs token`: whom it names, for how long, and when it can't."""

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from typer.testing import CliRunner

from org_local import Issuer
from org_service.auth.tokens import Tokens
from org_service.cli.app import app
from org_service.settings import AuthSettings


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No local stack, no setting of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("ORGS_")]:
        monkeypatch.delenv(name)


def run(*arguments: str, code: int = 0, **variables: str) -> Any:
    result = CliRunner().invoke(app, ["token", *arguments], env=variables)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def test_only_the_token_is_printed_and_the_service_accepts_it() -> None:
    issuer = Issuer.open(Path(".local"))
    printed = run("--user", "ann").stdout
    assert printed == printed.strip() + "\n"

    async def verify() -> str:
        tokens = Tokens(AuthSettings(issuer=issuer.name, jwks_file=str(issuer.jwks_file)))
        await tokens.start()
        try:
            return await tokens.verify(printed.strip().encode(), datetime.now(UTC))
        finally:
            await tokens.close()

    assert asyncio.run(verify()) == "ann"


def test_it_is_valid_for_an_hour_or_as_asked() -> None:
    Issuer.open(Path(".local"))
    for arguments, ttl_s in (([], 3600), (["--ttl", "60"], 60)):
        said = claims(run("--user", "ann", *arguments).stdout.strip())
        assert said["exp"] - said["iat"] == ttl_s
        assert abs(said["iat"] - time.time()) < 60


def test_json_says_what_the_token_says() -> None:
    Issuer.open(Path(".local"))
    document = orjson.loads(run("--user", "ann", "--ttl", "60", "--json", ORGS_AUTH__AUDIENCE="mine").stdout)
    said = claims(document["token"])
    assert {name: document[name] for name in document if name != "token"} == {
        "user": "ann",
        "issuer": "orgs-local",
        "audience": "mine",
        "issued_at": said["iat"],
        "expires_at": said["iat"] + 60,
    }
    assert (said["sub"], said["iss"], said["aud"], said["exp"]) == ("ann", "orgs-local", "mine", document["expires_at"])


def test_the_issuer_is_found_beside_the_keys_that_the_stack_names() -> None:
    issuer = Issuer.open(Path("elsewhere"))
    Path(".local").mkdir()
    Path(".local/stack.env").write_text(f"ORGS_AUTH__ISSUER={issuer.name}\nORGS_AUTH__JWKS_FILE={issuer.jwks_file}\n")
    token = run("--user", "ann").stdout.strip()
    key = jwt.PyJWKSet.from_json(issuer.jwks_file.read_text()).keys[0]
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience="orgs")["sub"] == "ann"


def test_where_there_is_no_local_stack_it_says_how_to_start_one() -> None:
    result = run("--user", "ann", code=1)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "contains no token issuer: `orgs up` creates it." in result.stderr
    assert not Path(".local").exists(), "it made one"


@pytest.mark.parametrize(
    "variables",
    [
        {"ORGS_AUTH__ISSUER": "https://issuer.example"},
        {"ORGS_AUTH__ISSUER": "https://issuer.example", "ORGS_AUTH__JWKS_URL": "https://issuer.example/jwks.json"},
        {"ORGS_AUTH__ISSUER": "orgs-local", "ORGS_AUTH__JWKS_URL": "https://issuer.example/jwks.json"},
    ],
)
def test_no_token_is_created_where_another_issuer_is_configured(variables: dict[str, str]) -> None:
    Issuer.open(Path(".local"))
    result = run("--user", "ann", code=1, **variables)
    assert result.stdout == ""
    assert f"tokens are issued by {variables['ORGS_AUTH__ISSUER']} here, not by a local stack" in result.stderr


@pytest.mark.parametrize("user", ["", "ann smith", "ånn", "a" * 201, "ann\n"])
def test_a_user_id_that_no_token_may_have_is_a_usage_error(user: str) -> None:
    Issuer.open(Path(".local"))
    assert "--user must be 1 to 200 visible ASCII characters." in run("--user", user, code=2).stderr


@pytest.mark.parametrize("ttl", ["0", "-1", "31536001", "1.5", "an hour"])
def test_a_time_to_live_is_a_second_to_a_year(ttl: str) -> None:
    Issuer.open(Path(".local"))
    assert "--ttl" in run("--user", "ann", "--ttl", ttl, code=2).stderr


def test_a_key_is_withdrawn_with_the_token_of_the_stack_that_it_signed() -> None:
    issuer, env = Issuer.open(Path(".local")), Path(".local/stack.env")
    env.write_text(f"ORGS_API_URL=http://127.0.0.1:1\nORGS_TOKEN={issuer.token('local-staff')}\n")
    signed = jwt.get_unverified_header(issuer.token("ann"))["kid"]
    said = run("--withdraw-key")
    assert (said.stdout, "the key is withdrawn" in said.stderr) == ("", True)
    first, last = env.read_text().splitlines()
    assert first == "ORGS_API_URL=http://127.0.0.1:1"
    renewed = last.removeprefix("ORGS_TOKEN=")
    assert claims(renewed)["sub"] == "local-staff"
    now = jwt.get_unverified_header(run("--user", "ann").stdout.strip())["kid"]
    assert jwt.get_unverified_header(renewed)["kid"] == now != signed
    assert env.stat().st_mode & 0o777 == 0o600


def test_without_a_user_there_is_no_token() -> None:
    Issuer.open(Path(".local"))
    assert "--user is missing" in run(code=2).stderr
