"""The rules: the outcome of one command, given the organization as it is. Pure.

One function a command type, each reading from top to bottom in the order in which rejections take precedence:
404 before 403 before 422 before 410 before 409, and among the 409s: the id exists, preconditions, deactivated, still
partner, name taken. What can't be read as a command (400), or comes from nobody (401), is rejected before it gets here.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from org_events.commands import (
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    IfCurrent,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.events import EventType
from org_events.organization import Address
from org_events.results import PROBLEMS, FieldError, Outcome, Problem, ProblemType
from org_service.domain import details
from org_service.domain.access import ACTION, TRUSTED, Access
from org_service.domain.organization import StoredOrganization, as_deleted, name_key
from org_service.domain.policy import READ

Holders = Mapping[str, UUID]
"""Which organization holds a name, by `name_key`; must know every name the command may claim."""


class Decision(NamedTuple):
    """The outcome of a command. `event` is set exactly when something changed."""

    outcome: Outcome
    code: int
    version: int | None
    """After the command; for a rejection the organization's current one, None where there is none to see."""
    event: EventType | None = None
    before: StoredOrganization | None = None
    """None where there was no organization (or a deleted one)."""
    after: StoredOrganization | None = None
    """The row as it must be now, also when nothing changed; `deleted_at` tells a deleted one. None when rejected."""
    problem: Problem | None = None


class Invalid(NamedTuple):
    """A command of a known type whose fields are wrong: it can only be rejected, but 404 comes first."""

    type: str
    errors: Sequence[FieldError]


def reject(
    problem: ProblemType, detail: str, version: int | None = None, errors: Sequence[FieldError] = ()
) -> Decision:
    """A rejection with the status and title of its problem type."""
    status, title = PROBLEMS[problem]
    return Decision(
        Outcome.REJECTED,
        status,
        version,
        problem=Problem(type=problem, title=title, status=status, detail=detail, errors=list(errors)),
    )


def decide(
    command: Command | Invalid,
    organization: StoredOrganization | None,
    holders: Holders,
    now: datetime,
    access: Access | None = TRUSTED,
    *,
    is_partner: bool = False,
) -> Decision:
    """The outcome of `command`.

    Args:
        command: As read; `Invalid` where its fields are wrong.
        organization: The row of its organization, a deleted one included; None where there never was one.
        holders: Who holds the names that the command may claim.
        now: Becomes `created_at`, `updated_at` and the like; with its time zone, UTC, and not before the organization's
            last change (`organization.choose_moment`).
        access: What the actor is there (`access.decide_command_access`); None where they can't see it.
        is_partner: Whether the organization is still partner of others; asked only for a delete.

    Returns:
        The decision. A rejection is a value; an exception means a defect of ours.
    """
    creates = command.type == CreateOrganization.type
    gone = organization is None or (organization.deleted_at is not None and command.type != RestoreOrganization.type)
    if gone and not creates:
        access = None
    # Whoever may create, but sees no other's organizations, doesn't learn which ids are taken before it matters.
    sees = access is not None and (not creates or access.staff or access.role is None)
    version = organization.version if organization is not None and sees else None
    rejection = reject_stateless(command, access, version)
    if rejection is not None:
        return rejection
    assert access is not None
    assert not isinstance(command, Invalid)
    if isinstance(command, CreateOrganization):
        return _create(command, organization, holders, now, version)
    assert organization is not None
    conflict = _find_conflict(cast("_Existing", command), organization, access, is_partner)
    return conflict or _RULES[type(command)](command, organization, holders, now)


def reject_stateless(command: Command | Invalid, access: Access | None, version: int | None) -> Decision | None:
    """The rejection of a command whatever state its organization is in: 404, 403, 422; None where that must be known.

    Args:
        command: As `decide`.
        access: What the actor is there; None where they can't see it.
        version: The organization's current one, where the actor may know it.
    """
    # guarantee 8: who cannot see the organization gets the answer of one that never existed, before anything else.
    if access is None:
        return reject(ProblemType.NOT_FOUND, details.NOT_FOUND)
    # Every outcome shows the organization, and preconditions let one guess at it: who may not read it changes nothing.
    if READ in access.denied_actions and command.type != CreateOrganization.type:
        return reject(ProblemType.FORBIDDEN, details.denied(access.role, READ))
    action = ACTION[command.type]
    if action in access.denied_actions:
        return reject(ProblemType.FORBIDDEN, details.denied(access.role, action), version)
    if isinstance(command, Invalid):
        return reject(
            ProblemType.INVALID_FIELDS,
            details.wrong_fields(len(command.errors), command.type),
            version,
            command.errors,
        )
    return None


def _create(
    command: CreateOrganization,
    organization: StoredOrganization | None,
    holders: Holders,
    now: datetime,
    version: int | None,
) -> Decision:
    if organization is not None:
        return reject(
            ProblemType.ALREADY_EXISTS,
            details.ALREADY_EXISTS,
            version,
        )
    key = name_key(command.name)
    if key in holders:
        return reject(ProblemType.NAME_TAKEN, details.NAME_TAKEN)
    after = StoredOrganization(
        id=command.org_id,
        name=command.name,
        name_key=key,
        domain=command.domain,
        primary_address=_address(command.primary_address),
        created_at=now,
        updated_at=now,
        deactivated_at=None,
        deleted_at=None,
        version=1,
    )
    return _applied(EventType.CREATED, None, after)


def _update(command: UpdateOrganization, organization: StoredOrganization, holders: Holders, now: datetime) -> Decision:
    given = command.model_fields_set
    name = command.name if "name" in given else organization.name
    domain = command.domain if "domain" in given else organization.domain
    address = _address(command.primary_address) if "primary_address" in given else organization.primary_address
    if (name, domain, address) == (organization.name, organization.domain, organization.primary_address):
        return _unchanged(organization)
    key = organization.name_key
    if name != organization.name:
        key = name_key(name)
        if holders.get(key, organization.id) != organization.id:
            return reject(ProblemType.NAME_TAKEN, details.NAME_TAKEN, organization.version)
    after = StoredOrganization(
        id=organization.id,
        name=name,
        name_key=key,
        domain=domain,
        primary_address=address,
        created_at=organization.created_at,
        updated_at=now,
        deactivated_at=organization.deactivated_at,
        deleted_at=None,
        version=organization.version + 1,
    )
    return _applied(EventType.UPDATED, organization, after)


def _delete(
    _command: DeleteOrganization, organization: StoredOrganization, _holders: Holders, now: datetime
) -> Decision:
    after = as_deleted(organization, organization.version + 1, now)
    return _applied(EventType.DELETED, organization, after)


def _deactivate(
    _command: DeactivateOrganization, organization: StoredOrganization, _holders: Holders, now: datetime
) -> Decision:
    if organization.deactivated_at is not None:
        return _unchanged(organization)
    after = organization._replace(deactivated_at=now, updated_at=now, version=organization.version + 1)
    return _applied(EventType.DEACTIVATED, organization, after)


def _reactivate(
    _command: ReactivateOrganization, organization: StoredOrganization, _holders: Holders, now: datetime
) -> Decision:
    if organization.deactivated_at is None:
        return _unchanged(organization)
    after = organization._replace(deactivated_at=None, updated_at=now, version=organization.version + 1)
    return _applied(EventType.REACTIVATED, organization, after)


def _restore(
    _command: RestoreOrganization, organization: StoredOrganization, holders: Holders, now: datetime
) -> Decision:
    if organization.deleted_at is None:
        return _unchanged(organization)
    key = name_key(organization.name)
    if key in holders:
        return reject(
            ProblemType.NAME_TAKEN,
            details.NAME_TAKEN_MEANWHILE,
            organization.version,
        )
    after = organization._replace(name_key=key, deleted_at=None, updated_at=now, version=organization.version + 1)
    return _applied(EventType.RESTORED, None, after)


_RULES: Final[dict[type[Command], Callable[..., Decision]]] = {
    UpdateOrganization: _update,
    DeleteOrganization: _delete,
    DeactivateOrganization: _deactivate,
    ReactivateOrganization: _reactivate,
    RestoreOrganization: _restore,
}

_Existing = (
    UpdateOrganization | DeleteOrganization | DeactivateOrganization | ReactivateOrganization | RestoreOrganization
)


def _find_conflict(
    command: _Existing, organization: StoredOrganization, access: Access, is_partner: bool
) -> Decision | None:
    """The rejection, if a precondition doesn't hold or the organization is in no state for the command.

    Only a restore gets here with an erased one: to all others it is deleted.
    """
    version = organization.version
    if organization.erased:
        return reject(ProblemType.ERASED, details.ERASED, version)
    if command.expected_version is not None and command.expected_version != version:
        return reject(ProblemType.PRECONDITION, details.other_version(command.expected_version, version), version)
    if command.if_current is not None:
        unlike = [f for f, value in _wanted(command.if_current).items() if getattr(organization, f) != value]
        if unlike:
            detail = f"if_current does not hold for: {', '.join(sorted(unlike))}."
            return reject(ProblemType.PRECONDITION, detail, version)
    if organization.deactivated_at is not None and isinstance(command, UpdateOrganization) and not access.staff:
        return reject(ProblemType.DEACTIVATED, details.DEACTIVATED, version)
    if is_partner and isinstance(command, DeleteOrganization):
        return reject(ProblemType.STILL_PARTNER, details.STILL_PARTNER, version)
    return None


def _wanted(if_current: IfCurrent) -> dict[str, Any]:
    values = if_current.values()
    if "primary_address" in values:
        values["primary_address"] = _address(values["primary_address"])
    return values


def _address(address: Address | None) -> dict[str, Any] | None:
    """As the table holds it: every line named, so that equal addresses are equal."""
    if address is None:
        return None
    return {
        "line1": address.line1,
        "line2": address.line2,
        "city": address.city,
        "region": address.region,
        "postal_code": address.postal_code,
        "country": address.country,
    }


def _applied(event: EventType, before: StoredOrganization | None, after: StoredOrganization) -> Decision:
    return Decision(Outcome.APPLIED, 200, after.version, event, before, after)


def _unchanged(organization: StoredOrganization) -> Decision:
    return Decision(Outcome.UNCHANGED, 200, organization.version, after=organization)
