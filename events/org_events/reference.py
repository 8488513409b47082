"""Reference data: who belongs where. Other services publish it, to compacted topics; the service reads it.

A record's value is the whole fact as JSON, its key names it, and a record without a value (a tombstone) takes it back.
Of two records with one key the later one counts, so publishing one again is always safe.

    Membership(user_id="ann", org_id=org, role=Role.ADMIN, joined_at=now).key()   # b"ann:0190c5f0-…"
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

USER_ID_CHARS_MAX: Final = 200
UserId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=USER_ID_CHARS_MAX, pattern=r"^[\x21-\x7E]+$"),
    Field(description="As in a token's `sub`: visible ASCII, no spaces"),
]


class Role(StrEnum):
    """What a user may be in an organization; what each may do is the service's policy."""

    ADMIN = "admin"
    SUPPORT = "support"
    CLOUD_REP = "cloud_rep"
    USER = "user"
    RESTRICTED_USER = "restricted_user"


class Reference(BaseModel):
    """What all reference data share. Readers ignore what they don't know."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    KEY_FIELDS: ClassVar[tuple[str, ...]]
    """The fields that the key is made of, joined by colons."""

    def key(self) -> bytes:
        """The key of the record."""
        return ":".join(str(getattr(self, field)) for field in self.KEY_FIELDS).encode()

    def to_body(self) -> bytes:
        """The value of the record."""
        return self.model_dump_json().encode()


class Membership(Reference):
    """A user belongs to an organization."""

    KEY_FIELDS: ClassVar = ("user_id", "org_id")

    user_id: UserId
    org_id: UUID
    role: Role
    joined_at: AwareDatetime
    active: bool = Field(default=True, description="True if absent; an inactive membership gives no access")


class Partnership(Reference):
    """The members of one organization serve another: they have `role` there."""

    KEY_FIELDS: ClassVar = ("partner_org_id", "org_id")

    partner_org_id: UUID
    org_id: UUID = Field(description="The client")
    role: Annotated[Role, Field(description="Of each member of the partner; cloud_rep if absent")] = Role.CLOUD_REP


class Staff(Reference):
    """A user works for whoever runs the platform: admin in every organization."""

    KEY_FIELDS: ClassVar = ("user_id",)

    user_id: UserId


def read_key(model: type[Reference], key: bytes | None) -> dict[str, str]:
    """The fields that a key names, as text; a tombstone has nothing else.

    Raises:
        ValueError: It is not a key of such a record.
    """
    try:
        parts = (key or b"").decode("ascii").rsplit(":", len(model.KEY_FIELDS) - 1)
    except UnicodeDecodeError as error:
        raise ValueError("the key is not ASCII") from error
    if len(parts) != len(model.KEY_FIELDS):
        raise ValueError(f"the key must be {':'.join(model.KEY_FIELDS)}")
    return dict(zip(model.KEY_FIELDS, parts, strict=True))
