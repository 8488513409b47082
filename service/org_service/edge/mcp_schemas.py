"""What MCP tools take and give, for the schemas that agents read. Output is held against these in the tests."""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from org_events.commands import Version
from org_events.organization import Address, Domain, Name, Organization
from org_events.reference import Role
from org_service.domain.access import AccessKind
from org_service.store.lists import OrderBy

KEY_CHARS_MAX: Final = 255


def _without_defaults(document: dict[str, Any]) -> None:
    """Left out isn't the same as null: an agent that fills in defaults would clear what it should leave alone."""
    for field in document["properties"].values():
        field.pop("default", None)


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid")


_OrganizationId = Annotated[UUID, Field(description="id of the organization, as list_organizations gives it")]
_ExpectedVersion = Annotated[
    Version | None,
    Field(
        description="The version you saw; refused with 409 if the organization has another one by now",
    ),
]
_Key = Annotated[
    str | None,
    Field(
        max_length=KEY_CHARS_MAX,
        pattern=r"^[\x21-\x7e]+$",
        description="Names this change: the same key with the same arguments is the same change and gets the first "
        "answer again. Made up if left out, and part of the result",
    ),
]
_Organization = Annotated[Organization | None, Field(description="As it is after the change; null while pending")]


class ListArguments(_Object):
    """Of list_organizations."""

    search: str | None = Field(default=None, description="Beginning of the name or of the domain, in either case")
    access: AccessKind | None = Field(
        default=None, description="Only what the user is a direct member of, or sees as staff, or through a partner"
    )
    order_by: OrderBy = Field(default="name", description="A minus is descending")
    limit: int = Field(default=50, ge=1, le=200, description="Organizations of one page at most")
    cursor: str | None = Field(default=None, description="next of the page before; all else must be the same")


class _ChangeArguments(_Object):
    model_config = ConfigDict(json_schema_extra=_without_defaults)


class GetArguments(_Object):
    """Of get_organization."""

    org_id: _OrganizationId


class UpdateArguments(_ChangeArguments):
    """Of update_organization."""

    org_id: _OrganizationId
    name: Name = Field(default="", examples=["Acme"])
    domain: Domain | None = Field(default=None, examples=["acme.com"])
    primary_address: Address | None = Field(default=None)
    expected_version: _ExpectedVersion = None
    idempotency_key: _Key = None


class DeleteArguments(_ChangeArguments):
    """Of delete_organization."""

    org_id: _OrganizationId
    expected_version: _ExpectedVersion = None
    idempotency_key: _Key = None


class Deleted(_Object):
    """What became of a deletion."""

    status: Literal["done", "pending"]
    idempotency_key: str
    command_id: UUID | None = Field(description="While pending: of the command that will be decided")


class Changed(Deleted):
    """What became of a change, and what the user is in the organization now."""

    organization: _Organization
    role: Role | None
    access: AccessKind | None
    denied_actions: list[str] | None = Field(description="What the user's role may not do in it")


def taken(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    return model.model_json_schema(mode="validation")


def given(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a tool's result."""
    return model.model_json_schema(mode="serialization")
