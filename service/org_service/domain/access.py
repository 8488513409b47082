"""Who may do what: one pure function, asked by the list call, the HTTP edge, MCP and the worker alike.

    user, memberships, partnerships, staff, policy, organization  ->  role, access, denied actions

None means that the user can't see the organization, which nobody can tell from there being none.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID

from org_events.commands import (
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.reference import Role
from org_service.domain.organization import StoredOrganization
from org_service.domain.policy import CREATE, DELETE, EXECUTE, UPDATE, Policy


class AccessKind(StrEnum):
    """Why a user can see an organization, in order of preference."""

    DIRECT = "direct"
    STAFF = "staff"
    PARTNERSHIP = "partnership"


class UserMembership(NamedTuple):
    """A membership of the user that is asked about."""

    org_id: UUID
    role: Role
    joined_at: datetime
    active: bool


class Partner(NamedTuple):
    """Another organization whose members serve this one."""

    partner_org_id: UUID
    role: Role
    partner_active: bool
    """Whether the partner is there, not deleted, not deactivated: from others nobody comes."""


class Relations(NamedTuple):
    """What the reference data say of some users and organizations."""

    staff: frozenset[str]
    memberships: Mapping[str, Mapping[UUID, UserMembership]]
    """By user, then by organization."""
    partnerships: Mapping[UUID, Sequence[Partner]]
    """By client."""


NO_RELATIONS: Final = Relations(frozenset(), MappingProxyType({}), MappingProxyType({}))


class Access(NamedTuple):
    """What a user is in an organization they can see."""

    role: Role | None
    """None only for `TRUSTED`."""
    kind: AccessKind | None
    denied_actions: tuple[str, ...]
    staff: bool = False


TRUSTED: Final = Access(None, None, ())
"""A publisher that the service was told to trust (`ORGS_AUTH__COMMANDS=trusted`): judged by whoever let it in."""

_STRONGEST_FIRST: Final = (Role.ADMIN, Role.SUPPORT, Role.CLOUD_REP, Role.USER, Role.RESTRICTED_USER)
"""Which role counts where several partners give one."""

ACTION: Final[Mapping[str, str]] = {
    CreateOrganization.type: CREATE,
    UpdateOrganization.type: UPDATE,
    DeleteOrganization.type: DELETE,
    DeactivateOrganization.type: EXECUTE,
    ReactivateOrganization.type: EXECUTE,
    RestoreOrganization.type: DELETE,
}
"""The action that each command is, by command type; what may delete may take a deletion back."""


def decide_access(
    organization: StoredOrganization,
    *,
    memberships: Mapping[UUID, UserMembership],
    partnerships: Iterable[Partner],
    staff: bool,
    policy: Policy,
) -> Access | None:
    """What one user is in an organization; None where they can't see it.

    Args:
        organization: As stored. A deleted one is seen by nobody.
        memberships: The user's own, by organization: at least those in this one and in its partners.
        partnerships: Of this organization as the client.
        staff: Whether the user is staff.
        policy: What each role is denied.
    """
    if organization.deleted_at is not None:
        return None
    return decide_access_if_there(
        organization.id, memberships=memberships, partnerships=partnerships, staff=staff, policy=policy
    )


def decide_access_if_there(
    org_id: UUID,
    *,
    memberships: Mapping[UUID, UserMembership],
    partnerships: Iterable[Partner],
    staff: bool,
    policy: Policy,
) -> Access | None:
    """What one user is in an organization, provided that it is there and not deleted; arguments as `decide_access`."""
    own = memberships.get(org_id)
    direct = own is not None and own.active
    if staff:
        return Access(
            Role.ADMIN, AccessKind.DIRECT if direct else AccessKind.STAFF, policy.denied[Role.ADMIN], staff=True
        )
    if own is not None and own.active:
        return Access(own.role, AccessKind.DIRECT, policy.denied[own.role])
    roles: set[Role] = set()
    for partnership in partnerships:
        member = memberships.get(partnership.partner_org_id)
        if member is not None and member.active and partnership.partner_active:
            roles.add(partnership.role)
    strongest = next((role for role in _STRONGEST_FIRST if role in roles), None)
    return None if strongest is None else Access(strongest, AccessKind.PARTNERSHIP, policy.denied[strongest])


def decide_access_beyond(*, staff: bool, policy: Policy) -> Access:
    """What a user is where there is no organization to be anything in: to create one, or restore one.

    Staff are admin; anybody else counts as `user`, whatever they are elsewhere.
    """
    if staff:
        return Access(Role.ADMIN, AccessKind.STAFF, policy.denied[Role.ADMIN], staff=True)
    return Access(Role.USER, None, policy.denied[Role.USER])


def decide_command_access(
    command_type: str,
    organization: StoredOrganization | None,
    *,
    memberships: Mapping[UUID, UserMembership],
    partnerships: Iterable[Partner],
    staff: bool,
    policy: Policy,
    if_there: UUID | None = None,
) -> Access | None:
    """What one user is for one command; arguments as `decide_access`, None for an organization that never was.

    A deleted organization can be seen by staff alone, and only to restore it.

    Args:
        if_there: The organization's id, where earlier commands wait that may create, delete or restore it: it is judged
            as if it were there. Who could not see it then sees it in no case.
    """
    if command_type == CreateOrganization.type:
        return decide_access_beyond(staff=staff, policy=policy)
    if if_there is not None:
        return decide_access_if_there(
            if_there, memberships=memberships, partnerships=partnerships, staff=staff, policy=policy
        )
    if organization is None:
        return None
    if organization.deleted_at is not None:
        return (
            decide_access_beyond(staff=True, policy=policy)
            if staff and command_type == RestoreOrganization.type
            else None
        )
    return decide_access(organization, memberships=memberships, partnerships=partnerships, staff=staff, policy=policy)
