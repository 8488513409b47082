"""The declared policy: read whole, rejected with every mistake named."""

from importlib.resources import files

import pytest

from org_events.reference import Role
from org_service.domain.policy import ACTIONS, PolicyError, read_policy

NONE = "\n".join(f"[roles.{role}]\ndenied = []" for role in Role)


def test_unlisted_actions_are_permitted_and_their_order_is_fixed() -> None:
    policy = read_policy(
        NONE.replace("[roles.user]\ndenied = []", '[roles.user]\ndenied = ["Report:read", "Organization:delete"]')
    )
    assert policy.denied[Role.USER] == ("Organization:delete", "Report:read")
    assert policy.denied[Role.ADMIN] == ()


def test_the_packaged_policy_has_every_role_and_denies_staff_nothing() -> None:
    policy = read_policy(files("org_service").joinpath("policy.toml").read_text())
    assert set(policy.denied) == set(Role)
    assert policy.denied[Role.ADMIN] == ()
    assert "Organization:read" not in {action for denied in policy.denied.values() for action in denied}
    assert len(ACTIONS) == 23


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[roles.user", "not TOML"),
        (NONE.replace("[roles.support]\ndenied = []", ""), r"\[roles.support\] is missing"),
        (NONE + "\n[roles.boss]\ndenied = []", r"\[roles.boss\]: unknown role"),
        (
            NONE.replace("[roles.admin]\ndenied = []", '[roles.admin]\ndenied = ["Organization:fly"]'),
            "'Organization:fly' is not an action",
        ),
        (NONE.replace("[roles.admin]\ndenied = []", "[roles.admin]\ndenied = [7]"), "7 is not an action"),
        (NONE.replace("[roles.admin]\ndenied = []", '[roles.admin]\ndenied = "Report:read"'), "needs `denied`, a list"),
        (
            NONE.replace("[roles.admin]\ndenied = []", "[roles.admin]\ndenied = []\nallowed = []"),
            "only `denied` is allowed",
        ),
        ("title = 1\n" + NONE, "'title' is unknown"),
        ("roles = 1", r"\[roles.admin\] is missing"),
    ],
)
def test_a_mistake_is_reported_with_its_location(text: str, mistake: str) -> None:
    with pytest.raises(PolicyError, match=mistake):
        read_policy(text)


def test_all_mistakes_are_reported_together() -> None:
    with pytest.raises(PolicyError) as raised:
        read_policy('[roles.user]\ndenied = ["A:b", "C:d"]')
    assert all(part in str(raised.value) for part in ("'A:b'", "'C:d'", "[roles.admin] is missing"))
