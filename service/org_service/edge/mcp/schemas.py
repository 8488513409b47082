"""The MCP tools as agents read them: what each is for, what it takes and gives. Output is held against these schemas.

Everything but ids may be null, which is the same as leaving it out: agents in strict mode send null for what they would
leave out, and a null that cleared a field would clear what nobody meant. What is to be cleared is named in `clear`.
"""

from typing import Annotated, Any, Final, Literal, get_args
from uuid import UUID

from mcp_types import Tool, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from org_events.commands import Version
from org_events.organization import Address, Domain, Name, Organization
from org_events.reference import Role
from org_service.domain.access import AccessKind
from org_service.domain.organization import OrderBy
from org_service.edge.http.models import LIMIT_DEFAULT, Limit, OrganizationList, SeenOrganization
from org_service.edge.http.request_headers import IDEMPOTENCY_KEY_CHARS_MAX

Clearable = Literal["domain", "primary_address"]
CLEARABLE: Final[tuple[str, ...]] = get_args(Clearable)


def _without_defaults(document: dict[str, Any]) -> None:
    """Left out isn't the same as null: an agent that fills in defaults would clear what it should leave alone."""
    for field in document["properties"].values():
        field.pop("default", None)


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid")


_OrganizationId = Annotated[UUID, Field(description="id of the organization, from list_organizations")]
_SeenVersion = Annotated[
    Version | None,
    Field(
        description="The version you read; rejected with 409 if the organization has another version by now",
    ),
]
_IdempotencyKey = Annotated[
    str | None,
    Field(
        max_length=IDEMPOTENCY_KEY_CHARS_MAX,
        pattern=r"^[\x21-\x7e]+$",
        description="Identifies this change: the same key with the same arguments is the same change and gets "
        "the first result again. Generated if absent, and returned in the result",
    ),
]
_ChangedOrganization = Annotated[
    Organization | None, Field(description="The organization after the change; null while pending")
]


class ListArguments(_Object):
    """Of list_organizations."""

    search: str | None = Field(default=None, description="Beginning of the name or the domain, ignoring case")
    access: AccessKind | None = Field(
        default=None,
        description="Only organizations where the user is a direct member, or which they see as staff or through a "
        "partner",
    )
    order_by: OrderBy | None = Field(default="name", description="A leading minus sorts in descending order")
    limit: Limit | None = Field(default=LIMIT_DEFAULT, description="Maximum number of organizations on a page")
    cursor: str | None = Field(
        default=None, description="next of the previous page; all other arguments must be the same"
    )


class _ChangeArguments(_Object):
    model_config = ConfigDict(json_schema_extra=_without_defaults)


class GetArguments(_Object):
    """Of get_organization."""

    org_id: _OrganizationId


class UpdateArguments(_ChangeArguments):
    """Of update_organization."""

    org_id: _OrganizationId
    name: Name | None = Field(default=None, examples=["Acme"])
    domain: Domain | None = Field(default=None, examples=["acme.com"])
    primary_address: Address | None = Field(default=None)
    clear: list[Clearable] | None = Field(
        default=None, description="Fields to clear. A null value does not clear a field: it leaves it unchanged"
    )
    expected_version: _SeenVersion = None
    idempotency_key: _IdempotencyKey = None


class DeleteArguments(_ChangeArguments):
    """Of delete_organization."""

    org_id: _OrganizationId
    expected_version: _SeenVersion = None
    idempotency_key: _IdempotencyKey = None


class Deleted(_Object):
    """The outcome of a deletion."""

    status: Literal["done", "pending"]
    idempotency_key: str
    command_id: UUID | None = Field(description="While pending: the id of the command that will be decided")


class Changed(Deleted):
    """The outcome of a change, and what the user is in the organization now."""

    changed: list[str] | None = Field(
        description="Names of the fields that this change modified; empty if all of them already had their "
        "value, null while pending"
    )
    organization: _ChangedOrganization
    role: Role | None
    access: AccessKind | None
    denied_actions: list[str] | None = Field(description="What the user's role may not do there")


def input_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    return model.model_json_schema(mode="validation")


def output_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a tool's result."""
    return model.model_json_schema(mode="serialization")


_READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
TOOLS: Final = (
    Tool(
        name="list_organizations",
        title="List organizations",
        description="List the organizations that the user can see, one page at a time, with the user's role in "
        "each, why they see it (access) and what they are denied. Search by the beginning of the "
        "name or of the e-mail domain. If next is not null there are more: call again with cursor "
        "set to it and all other arguments the same. is_default marks the user's default "
        "organization.",
        input_schema=input_schema(ListArguments),
        output_schema=output_schema(OrganizationList),
        annotations=_READS,
    ),
    Tool(
        name="get_organization",
        title="Get an organization",
        description="Get one organization: name, e-mail domain, postal address, whether it is deactivated, its "
        "version, the user's role in it and what they are denied. An organization that the user "
        "cannot see is not found.",
        input_schema=input_schema(GetArguments),
        output_schema=output_schema(SeenOrganization),
        annotations=_READS,
    ),
    Tool(
        name="update_organization",
        title="Update an organization",
        description="Change the name, e-mail domain or postal address of an organization. A field that is left "
        "out or null stays unchanged; to clear domain or primary_address, list it in clear; "
        "primary_address is replaced as a whole, so send all of its lines. Pass the version you "
        "read as expected_version, so that the change is rejected instead of overwriting a change "
        "made since. The result says what changed, and shows the organization as it is now. If "
        "status is pending, the change is accepted but not decided yet: call again with the same "
        "arguments and the idempotency_key of the result; nothing is done twice.",
        input_schema=input_schema(UpdateArguments),
        output_schema=output_schema(Changed),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    ),
    Tool(
        name="delete_organization",
        title="Delete an organization",
        description="Delete an organization for everyone: nobody sees it any more, its name becomes available, "
        "and only staff can restore it. Ask the user first. Pass the version you read as "
        "expected_version, so that the delete is rejected if someone changed the organization "
        "since. Rejected while it is a partner that serves other organizations.",
        input_schema=input_schema(DeleteArguments),
        output_schema=output_schema(Deleted),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    ),
)
