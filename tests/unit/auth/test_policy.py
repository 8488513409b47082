"""The policy in force, and what is said of a wrong one."""

from pathlib import Path

import pytest

from org_events.reference import Role
from org_service.auth.policy import load_policy
from org_service.errors import ConfigurationError
from org_service.settings import AuthSettings

DENIES_NOTHING = "".join(f"[roles.{role}]\ndenied = []\n" for role in ("admin", "support", "cloud_rep", "user"))


def test_the_packaged_policy_is_used_when_none_is_named() -> None:
    policy = load_policy(AuthSettings())
    assert set(policy.denied) == set(Role)
    assert "Organization:delete" in policy.denied[Role.RESTRICTED_USER]


def test_a_named_policy_is_used_instead(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(DENIES_NOTHING + '[roles.restricted_user]\ndenied = ["Report:read"]\n')
    policy = load_policy(AuthSettings(policy_file=str(path)))
    assert policy.denied[Role.RESTRICTED_USER] == ("Report:read",)
    assert policy.denied[Role.USER] == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"roles = ", "the policy is not TOML"),
        (DENIES_NOTHING.encode(), r"\[roles.restricted_user\] is missing"),
        (
            f'{DENIES_NOTHING}[roles.restricted_user]\ndenied = ["Report:shred"]'.encode(),
            "'Report:shred' is not an action",
        ),
        (b"\xff", "is not UTF-8"),
    ],
    ids=["not TOML", "a role is missing", "unknown action", "no text"],
)
def test_a_wrong_policy_stops_the_start_with_file_and_mistake(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as stopped:
        load_policy(AuthSettings(policy_file=str(path)))
    assert str(stopped.value).startswith(f"ORGS_AUTH__POLICY_FILE: {path}")


def test_a_policy_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"ORGS_AUTH__POLICY_FILE: .*mine\.toml cannot be read: No such file"):
        load_policy(AuthSettings(policy_file=str(tmp_path / "mine.toml")))
