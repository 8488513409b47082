"""What happened to organizations: one event a change, with the whole organization before and after."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from org_events.organization import Organization


class EventType(StrEnum):
    """The `ce_type` of an event. Readers skip types they don't know."""

    CREATED = "org.created"
    UPDATED = "org.updated"
    DELETED = "org.deleted"
    DEACTIVATED = "org.deactivated"
    REACTIVATED = "org.reactivated"
    RESTORED = "org.restored"
    ERASED = "org.erased"


class OrganizationEvent(BaseModel):
    """The body of every event; its type is in the header `ce_type`.

    `before` is null for an organization that did not exist (or was deleted), `after` for a deleted one.
    In `org.erased` both are null, and so is `actor`: delete all that is kept of the organization.
    `changed` names those of name, domain, primary_address and deactivated that differ between the two.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    org_id: UUID
    version: int = Field(ge=1, description="The organization's version after the change: 1, 2, 3 … without a gap")
    position: int = Field(ge=1, description="Position in the journal of outcomes, unique, growing in commit order")
    changed: list[str]
    before: Organization | None
    after: Organization | None
    command_id: UUID
    actor: str | None
    recorded_at: datetime
