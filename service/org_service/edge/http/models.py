"""What goes over HTTP, for the OpenAPI document. Answers are written as bytes; tests hold them against these models."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from org_events.commands import IfCurrent, Version
from org_events.organization import Address, Domain, Name, Organization
from org_events.reference import Role
from org_events.results import Problem
from org_service.domain.access import AccessKind
from org_service.edge.http.request_headers import NO_VERSION

LIMIT_MAX: Final = 200
"""Entries of a page."""
LIMIT_DEFAULT: Final = 50
Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX)]
SEARCH_CHARS_MAX: Final = 253
"""The longest domain; names are shorter."""

_Action = Annotated[str, Field(examples=["Organization:delete"])]
_OrganizationVersion = Annotated[
    int, Field(ge=1, le=NO_VERSION, description="1, 2, 3 … per organization, one step per change")
]


class _ClosedModel(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ListedOrganization(_ClosedModel):
    """One of the caller's organizations."""

    id: UUID
    name: str
    domain: str | None
    deactivated: bool
    role: Role = Field(description="The caller's role in the organization")
    access: AccessKind = Field(description="Why the caller can see it")
    is_default: bool = Field(description="The earliest active membership; true for at most one organization")
    denied_actions: list[_Action] = Field(description="What the role may not do; everything else is permitted")


class OrganizationList(_ClosedModel):
    """A page of the caller's organizations."""

    organizations: list[ListedOrganization]
    next: str | None = Field(description="`cursor` of the next page, null on the last page")


class SeenOrganization(_ClosedModel):
    """An organization, and what the caller is in it."""

    id: UUID
    name: str
    domain: str | None
    created_at: datetime
    updated_at: datetime
    primary_address: Address | None
    deactivated: bool
    deactivated_at: datetime | None
    version: _OrganizationVersion
    role: Role
    access: AccessKind
    denied_actions: list[_Action]


class Change(_ClosedModel):
    """One change of an organization."""

    version: _OrganizationVersion
    position: int = Field(ge=1, description="Position in the journal")
    type: str = Field(examples=["org.updated"])
    changed: list[str] = Field(examples=[["domain"]])
    before: Organization | None
    after: Organization | None
    command_id: UUID
    actor: str | None
    recorded_at: datetime


class History(_ClosedModel):
    """A page of an organization's changes, in order."""

    changes: list[Change]
    next: int | None = Field(description="`after_version` of the next page, null on the last page")


class CommandStatus(_ClosedModel):
    """The outcome of a command."""

    command_id: UUID
    status: Literal["pending", "applied", "unchanged", "rejected", "parked", "expired"] = Field(
        description="`pending`: not decided yet. `parked`: kept for an operator, who decides. `expired`: lost "
        "before it was decided, send it again. All others are final"
    )
    code: int | None = Field(description="As an HTTP status; null while pending")
    org_id: UUID | None
    version: int | None
    position: int | None = Field(description="Position in the journal")
    organization: Organization | None = Field(
        description="The organization after an applied or unchanged command; null after a delete"
    )
    changed: list[str] | None = Field(
        description="Names of the changed fields, empty if unchanged; null while pending and if rejected"
    )
    problem: Problem | None


class _ExistingOrganization(BaseModel):
    model_config = ConfigDict(extra="allow")

    expected_version: Version | None = Field(
        default=None, description="409 unless the organization has this version; `If-Match` does the same with 412"
    )
    if_current: IfCurrent | None = Field(default=None, description="409 unless these fields have these values")


class Precondition(_ExistingOrganization):
    """What must hold for the change to go through."""


class OrganizationChange(_ExistingOrganization):
    """What to change: left out means unchanged, null clears, an address is replaced whole."""

    name: Name = Field(default="", examples=["Acme"])
    domain: Domain | None = Field(default=None, examples=["acme.com"])
    primary_address: Address | None = None


class NewOrganization(BaseModel):
    """An organization to create."""

    model_config = ConfigDict(extra="allow")

    id: UUID | None = Field(
        default=None,
        description="An id of your choice, preferably version 4 or 7; not the nil or max UUID",
    )
    name: Name = Field(examples=["Acme"])
    domain: Domain | None = Field(default=None, examples=["acme.com"])
    primary_address: Address | None = None


class HttpProblemModel(Problem):
    """A problem (RFC 9457)."""

    model_config = ConfigDict(extra="allow", title="HttpProblem")


SCHEMAS: tuple[type[BaseModel], ...] = (
    OrganizationList, SeenOrganization, Organization, History, CommandStatus,
    Precondition, OrganizationChange, NewOrganization, HttpProblemModel,
)  # fmt: skip


def make_json_schemas() -> dict[str, Any]:
    """Every model as a JSON Schema for the document's components, by name."""
    schemas: dict[str, Any] = {}
    for model in SCHEMAS:
        mode: Literal["validation", "serialization"] = (
            "validation" if model in (Precondition, OrganizationChange, NewOrganization) else "serialization"
        )
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode=mode)
        schemas |= schema.pop("$defs", {})
        schemas[schema["title"]] = schema
    schemas["OrganizationChange"]["properties"]["name"].pop("default")
    return schemas
