"""Who may do what: every role, access, state and command, by a table written by hand."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any
from uuid import UUID

import pytest

from org_events.commands import COMMANDS, CreateOrganization
from org_events.reference import Role
from org_service.domain.access import (
    Access,
    AccessKind,
    Partner,
    UserMembership,
    decide_access,
    decide_command_access,
)
from org_service.domain.decide import decide
from org_service.domain.organization import StoredOrganization
from org_service.domain.policy import read_policy
from tests.support.default_organization import default_organization

POLICY = read_policy(files("org_service").joinpath("policy.toml").read_text())
NOW = datetime(2026, 5, 1, tzinfo=UTC)
ORG, PARTNER, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
ACTIVE = StoredOrganization(ORG, "Acme", "acme", None, None, NOW, NOW, None, None, 3)
STATES = {
    "active": ACTIVE,
    "deactivated": ACTIVE._replace(deactivated_at=NOW),
    "deleted": ACTIVE._replace(deleted_at=NOW, name_key=None),
    "missing": None,
}
COLUMNS = ("create", "update", "delete", "deactivate", "reactivate", "restore")

# One line a state: active, deactivated, deleted, missing.
FULL = """403 200 200 200 200 200
          403 409 200 200 200 200
          403 404 404 404 404 404
          403 404 404 404 404 404"""
CHANGES_FIELDS = """403 200 403 403 403 403
                    403 409 403 403 403 403
                    403 404 404 404 404 404
                    403 404 404 404 404 404"""
LOOKS = """403 403 403 403 403 403
           403 403 403 403 403 403
           403 404 404 404 404 404
           403 404 404 404 404 404"""
STAFF = """409 200 200 200 200 200
           409 200 200 200 200 200
           409 404 404 404 404 200
           200 404 404 404 404 404"""
NOTHING = """403 404 404 404 404 404
             403 404 404 404 404 404
             403 404 404 404 404 404
             403 404 404 404 404 404"""
BY_ROLE = {
    Role.ADMIN: FULL,
    Role.SUPPORT: CHANGES_FIELDS,
    Role.CLOUD_REP: CHANGES_FIELDS,
    Role.USER: LOOKS,
    Role.RESTRICTED_USER: LOOKS,
}


def direct(role: Role) -> dict[str, Any]:
    return {"memberships": {ORG: UserMembership(ORG, role, NOW, True)}, "partnerships": [], "staff": False}


def partnership(role: Role) -> dict[str, Any]:
    """The role in the partner is another one: the partnership's counts."""
    member = UserMembership(
        PARTNER, Role.RESTRICTED_USER if role is not Role.RESTRICTED_USER else Role.ADMIN, NOW, True
    )
    return {"memberships": {PARTNER: member}, "partnerships": [Partner(PARTNER, role, True)], "staff": False}


def staff(role: Role) -> dict[str, Any]:
    return direct(role) | {"staff": True}


def nothing(role: Role) -> dict[str, Any]:
    """All that gives no access: left, no member of the partner any more, a partner that is gone, somebody else's."""
    memberships = {
        ORG: UserMembership(ORG, role, NOW, False),
        PARTNER: UserMembership(PARTNER, role, NOW, False),
        OTHER: UserMembership(OTHER, role, NOW, True),
    }
    gone = [Partner(PARTNER, role, True), Partner(OTHER, role, False), Partner(UUID(int=9), role, True)]
    return {"memberships": memberships, "partnerships": gone, "staff": False}


def table() -> Iterator[tuple[Role, str, str, str, int]]:
    for role in Role:
        for access, text in (
            ("direct", BY_ROLE[role]),
            ("partnership", BY_ROLE[role]),
            ("staff", STAFF),
            ("nothing", NOTHING),
        ):
            for state, line in zip(STATES, text.splitlines(), strict=True):
                for command, code in zip(COLUMNS, line.split(), strict=True):
                    yield role, access, state, command, int(code)


RELATIONS = {"direct": direct, "partnership": partnership, "staff": staff, "nothing": nothing}


@pytest.mark.parametrize(("role", "access", "state", "command", "code"), list(table()))
def test_every_role_access_state_and_command(role: Role, access: str, state: str, command: str, code: int) -> None:
    model = COMMANDS[f"org.{command}"]
    fields = {"name": "Globex"} if command in ("create", "update") else {}
    given = decide_command_access(model.type, STATES[state], **RELATIONS[access](role), policy=POLICY)
    decision = decide(model.model_validate({"org_id": ORG, **fields}), STATES[state], {}, NOW, given)
    assert decision.code == code
    sees = code != 404 and (command != "create" or access == "staff") and state != "missing"
    if code in (403, 404, 409):
        assert decision.version == (3 if sees else None)


@pytest.mark.parametrize("role", Role)
def test_the_kinds_of_access_in_their_order_of_preference(role: Role) -> None:
    denied = POLICY.denied[role]
    both: dict[str, Any] = partnership(role)
    both["memberships"] |= direct(role)["memberships"]
    cases: list[tuple[dict[str, Any], Access | None]] = [
        (direct(role), Access(role, AccessKind.DIRECT, denied)),
        (both, Access(role, AccessKind.DIRECT, denied)),
        (partnership(role), Access(role, AccessKind.PARTNERSHIP, denied)),
        (staff(role), Access(Role.ADMIN, AccessKind.DIRECT, (), staff=True)),
        (nothing(role) | {"staff": True}, Access(Role.ADMIN, AccessKind.STAFF, (), staff=True)),
        (partnership(role) | {"staff": True}, Access(Role.ADMIN, AccessKind.STAFF, (), staff=True)),
        (nothing(role), None),
    ]
    for given, wanted in cases:
        assert decide_access(ACTIVE, **given, policy=POLICY) == wanted


def test_of_several_partners_the_strongest_role_counts() -> None:
    memberships = {org: UserMembership(org, Role.USER, NOW, True) for org in (PARTNER, OTHER)}
    partners = [Partner(PARTNER, Role.USER, True), Partner(OTHER, Role.SUPPORT, True)]
    access = decide_access(ACTIVE, memberships=memberships, partnerships=partners, staff=False, policy=POLICY)
    assert access is not None
    assert access.role is Role.SUPPORT


def test_a_deleted_organization_is_seen_by_nobody() -> None:
    for role in Role:
        for relations in RELATIONS.values():
            assert decide_access(STATES["deleted"] or ACTIVE, **relations(role), policy=POLICY) is None


def test_the_default_is_the_earliest_joined_active_membership() -> None:
    def member(org: UUID, day: int, active: bool = True) -> UserMembership:
        return UserMembership(org, Role.USER, datetime(2026, 1, day, tzinfo=UTC), active)

    assert default_organization([]) is None
    assert default_organization([member(ORG, 1, active=False)]) is None
    assert default_organization([member(ORG, 3), member(PARTNER, 2), member(OTHER, 1, active=False)]) == PARTNER
    assert default_organization([member(OTHER, 2), member(PARTNER, 2)]) == PARTNER


def test_a_taken_name_is_reported_only_to_those_who_may_use_it() -> None:
    access = decide_command_access("org.create", None, **nothing(Role.ADMIN), policy=POLICY)
    decision = decide(CreateOrganization(org_id=ORG, name="Globex"), None, {"globex": OTHER}, NOW, access)
    assert decision.code == 403


def test_an_organization_that_serves_others_is_not_deleted() -> None:
    command = COMMANDS["org.delete"].model_validate({"org_id": ORG})
    decision = decide(command, ACTIVE, {}, NOW, is_partner=True)
    assert (decision.code, decision.version) == (409, 3)
    assert decision.problem is not None
    assert decision.problem.type == "urn:orgs:problem:still-partner"
    assert decide(command, STATES["deleted"], {}, NOW, is_partner=True).code == 404
    deactivate = COMMANDS["org.deactivate"].model_validate({"org_id": ORG})
    assert decide(deactivate, ACTIVE, {}, NOW, is_partner=True).code == 200
