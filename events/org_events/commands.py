"""What other services may ask for. A field left out means "unchanged"; `None` clears it.

    UpdateOrganization(org_id=org, domain=None)           # clears the domain, keeps name and address
    UpdateOrganization(org_id=org, name="Acme", expected_version=7)

The difference lives in pydantic's `model_fields_set`, so it survives `to_body()` and reading back.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, cast
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from org_events.organization import Address, Domain, Name

PAYLOAD_BYTES_MAX: Final = 64 * 1024
"""The largest command body the service reads; far above any real one, far below what hurts a batch."""
PAYLOAD_DEPTH_MAX: Final = 16
"""How deep a command's JSON may nest."""

RESERVED_IDS: Final = frozenset({UUID(int=0), UUID(int=2**128 - 1)})
"""The nil and the max UUID (RFC 9562, sections 5.9 and 5.10): what programs send that forgot to choose an id. They
name no command, and no organization that is yet to be created."""

_EXACT_MAX: Final = 2.0**53
"""Beyond it a float no longer says which integer was written."""


def exact_integer(given: object) -> object:
    """An integer as JSON Schema knows it (2020-12, core, section 4.2.3): 7.0 is one, "7" and true are not."""
    if isinstance(given, float) and given.is_integer() and abs(given) <= _EXACT_MAX:
        return int(given)
    return given


Version = Annotated[int, Field(strict=True, ge=1, le=2**63 - 1), BeforeValidator(exact_integer)]


def _not_reserved(org_id: UUID) -> UUID:
    if org_id in RESERVED_IDS:
        raise PydanticCustomError("reserved_uuid", "Must not be the nil or max UUID; choose another id")
    return org_id


def _unset_name() -> str:
    """The value of a name nobody set: never sent, and an explicit null stays an error."""
    return cast("str", None)


def _is_unset(name: str | None) -> bool:
    return name is None


class _Fields(BaseModel):
    """A publisher's typo is an error here; the service reads with `extra="ignore"`, as the contract says."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class IfCurrent(_Fields):
    """Values the organization must have for the command to go through (409 otherwise); only what is set counts."""

    name: Name = Field(default_factory=_unset_name, exclude_if=_is_unset)
    domain: Domain | None = None
    primary_address: Address | None = None

    def values(self) -> dict[str, Any]:
        """The values asked for, by field name: absent means "any"."""
        return {field: getattr(self, field) for field in self.model_fields_set}


class Command(_Fields):
    """What all commands share. Subclasses set `type`, the `ce_type` on the wire."""

    type: ClassVar[str]

    org_id: UUID

    def to_body(self) -> bytes:
        """The JSON body: exactly the fields that were set."""
        return self.model_dump_json(exclude_unset=True).encode()


@dataclass(frozen=True, slots=True)
class UncheckedCommand:
    """A command whose body is sent as it is, for programs that leave the judgement of its fields to the service.

    Args:
        type: The `type` of a command's class.
        org_id: The record's key; the body must name the same.
        body: JSON.
    """

    type: str
    org_id: UUID
    body: bytes

    def to_body(self) -> bytes:
        """The JSON body."""
        return self.body


AnyCommand = Command | UncheckedCommand


def body_to_send(command: AnyCommand, command_id: UUID) -> bytes:
    """The body of a command that the service can read.

    Raises:
        ValueError: It is larger than the service reads, or the command id is reserved.
    """
    if command_id in RESERVED_IDS:
        raise ValueError("the command id is the nil or max UUID; give each command its own id")
    body = command.to_body()
    if len(body) > PAYLOAD_BYTES_MAX:
        raise ValueError(
            f"the body of {command.type} {command_id} has {len(body)} bytes, the service accepts at most "
            f"{PAYLOAD_BYTES_MAX}; shorten its fields"
        )
    return body


class CreateOrganization(Command):
    """Create an organization under an id of the publisher's choice: any UUID that isn't reserved, 4 or 7 at best."""

    type: ClassVar[str] = "org.create"

    org_id: Annotated[UUID, AfterValidator(_not_reserved)]
    name: Name
    domain: Domain | None = None
    primary_address: Address | None = None


class _OnExisting(Command):
    """A command to an organization that exists, with optional preconditions (409 when they don't hold)."""

    expected_version: Version | None = None
    if_current: IfCurrent | None = None


class UpdateOrganization(_OnExisting):
    """Change some of an organization's fields."""

    type: ClassVar[str] = "org.update"

    name: Name = Field(default_factory=_unset_name, exclude_if=_is_unset)
    domain: Domain | None = None
    primary_address: Address | None = None

    def changes(self) -> dict[str, Any]:
        """The fields to write, by name: absent means unchanged, `None` clears."""
        return {f: getattr(self, f) for f in ("name", "domain", "primary_address") if f in self.model_fields_set}


class DeleteOrganization(_OnExisting):
    """Delete an organization; its name becomes free. `RestoreOrganization` brings it back."""

    type: ClassVar[str] = "org.delete"


class DeactivateOrganization(_OnExisting):
    """Deactivate an organization: until reactivated, only reactivate and delete go through."""

    type: ClassVar[str] = "org.deactivate"


class ReactivateOrganization(_OnExisting):
    """Take a deactivation back."""

    type: ClassVar[str] = "org.reactivate"


class RestoreOrganization(_OnExisting):
    """Bring a deleted organization back as it was; its name must still be free."""

    type: ClassVar[str] = "org.restore"


COMMANDS: Final[dict[str, type[Command]]] = {
    command.type: command
    for command in (
        CreateOrganization,
        UpdateOrganization,
        DeleteOrganization,
        DeactivateOrganization,
        ReactivateOrganization,
        RestoreOrganization,
    )
}
"""Every command model by its `ce_type`."""
