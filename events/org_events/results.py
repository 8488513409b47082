"""The outcome of a command: published once to `orgs.results`, and again for each duplicate."""

from enum import StrEnum
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from org_events.organization import Organization

RESULT_TYPE: Final = "org.result"
"""The `ce_type` of every result."""


class Outcome(StrEnum):
    """The outcome of a command. All but `parked` are final."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"
    PARKED = "parked"


class ProblemType(StrEnum):
    """Why a command was rejected; stable, so programs may branch on it."""

    UNREADABLE = "urn:orgs:problem:unreadable-command"
    UNAUTHENTICATED = "urn:orgs:problem:unauthenticated"
    FORBIDDEN = "urn:orgs:problem:forbidden"
    NOT_FOUND = "urn:orgs:problem:not-found"
    INVALID_FIELDS = "urn:orgs:problem:invalid-fields"
    COMMAND_ID_REUSED = "urn:orgs:problem:command-id-reused"
    ALREADY_EXISTS = "urn:orgs:problem:already-exists"
    PRECONDITION = "urn:orgs:problem:precondition-failed"
    DEACTIVATED = "urn:orgs:problem:deactivated"
    NAME_TAKEN = "urn:orgs:problem:name-taken"
    STILL_PARTNER = "urn:orgs:problem:still-partner"
    QUEUE_FULL = "urn:orgs:problem:queue-full"
    PARKED = "urn:orgs:problem:parked"
    DISCARDED = "urn:orgs:problem:discarded"
    ERASED = "urn:orgs:problem:erased"


PROBLEMS: Final[dict[ProblemType, tuple[int, str]]] = {
    ProblemType.UNREADABLE: (400, "The record is not a valid command"),
    ProblemType.UNAUTHENTICATED: (401, "No valid token"),
    ProblemType.FORBIDDEN: (403, "The role is denied this action"),
    ProblemType.NOT_FOUND: (404, "Organization not found"),
    ProblemType.INVALID_FIELDS: (422, "A field is invalid"),
    ProblemType.COMMAND_ID_REUSED: (422, "The command id belongs to another command"),
    ProblemType.ALREADY_EXISTS: (409, "An organization with this id already exists"),
    ProblemType.PRECONDITION: (409, "A precondition does not hold"),
    ProblemType.DEACTIVATED: (409, "The organization is deactivated"),
    ProblemType.NAME_TAKEN: (409, "Another organization has this name"),
    ProblemType.STILL_PARTNER: (409, "The organization is still a partner of others"),
    ProblemType.QUEUE_FULL: (409, "Too many commands of the organization are waiting for an operator"),
    ProblemType.PARKED: (500, "Parked for an operator"),
    ProblemType.DISCARDED: (500, "Discarded by an operator"),
    ProblemType.ERASED: (410, "The organization was erased"),
}
"""Status and title of every problem type (RFC 9457)."""


class FieldError(BaseModel):
    """One wrong field: where (`primary_address.country`), a stable code, and what to do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    path: str
    code: str
    message: str


class Problem(BaseModel):
    """Why a command did not go through (the members of RFC 9457, and the wrong fields)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str = Field(
        description="Stable, so programs may branch on it; new types may be added", examples=[*ProblemType]
    )
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class Result(BaseModel):
    """The outcome of one command.

    `organization` is the whole organization after an applied or unchanged command (null after a delete) and null
    when rejected. `position` is the outcome's place in the journal; null where nothing was journaled (parked, or
    a command id used for another payload).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    command_id: UUID
    org_id: UUID | None = Field(description="null if the record's organization cannot be read")
    outcome: Outcome
    code: int
    version: int | None
    organization: Organization | None
    position: int | None
    problem: Problem | None
    final: bool
