"""What a handler under test is given: a record of `orgs.events` or `orgs.state`, read.

The one adapter between records and handlers. A program with a type of its own for changes, or one that reads records
itself, hands its own function to the harness.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from org_events.events import OrganizationEvent
from org_events.organization import Organization
from org_events.testing.golden import Message
from org_events.topics import Topics

STATE_TOPIC: Final = Topics().state


@dataclass(frozen=True, slots=True)
class DeliveredChange:
    """One change of one organization, or, while a subscriber loads, how one is.

    Attributes:
        type: The `ce_type`, known or not; of a record of `orgs.state` it is `organization` or `organization-deleted`.
        before: None also where the record doesn't say it, as on `orgs.state`.
        after: None once the organization is deleted or erased.
        headers: All of them, as text.
    """

    type: str
    org_id: UUID
    version: int
    position: int
    changed: tuple[str, ...]
    before: Organization | None
    after: Organization | None
    actor: str | None
    headers: Mapping[str, str]


def to_change(message: Message) -> DeliveredChange:
    """Read a record of either topic; types, members and headers that nobody knows pass through or are ignored."""
    headers = message.header
    if message.topic == STATE_TOPIC:
        return DeliveredChange(
            type=message.message,
            org_id=UUID(message.key.decode()),
            version=int(headers["ce_orgversion"]),
            position=int(headers["ce_position"]),
            changed=(),
            before=None,
            after=None if message.value is None else Organization.model_validate_json(message.value),
            actor=None,
            headers=headers,
        )
    event = OrganizationEvent.model_validate_json(message.value or b"")
    return DeliveredChange(
        type=headers["ce_type"],
        org_id=event.org_id,
        version=event.version,
        position=event.position,
        changed=tuple(event.changed),
        before=event.before,
        after=event.after,
        actor=event.actor,
        headers=headers,
    )
