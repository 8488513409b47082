"""The outcome of a command: new, known from before, and as it is published. Tuples, because each batch makes thousands.

A command that has no outcome (yet), and what is kept of a record that is set aside, are here as well.
"""

from datetime import datetime
from typing import Final, Literal, NamedTuple
from uuid import UUID

from org_service.domain.reasons import AuthenticatedBy, ParkedState, ParkReason

RELEASES_MAX: Final = 3
"""Of a parked record: what fails after three fixes needs another decision than a fourth."""


class KnownOutcome(NamedTuple):
    """What the journal remembers of a command: enough to know it again, to send its outcome again and to show it."""

    command_id: UUID
    position: int
    org_id: UUID | None
    version: int | None
    outcome: str
    code: int
    request_digest: bytes
    command_partition: int
    command_offset: int
    event_type: str | None
    after: str | None
    problem: str | None
    traceparent: str | None
    recorded_at: datetime
    command_time_ms: int | None = None
    """Of the record, by the broker's clock; None where an older release journaled it."""
    actor: str | None = None
    changed: str | None = None


UndecidedStatus = Literal["parked", "pending", "expired"]


class Undecided(NamedTuple):
    """A command that has no outcome: set aside (`parked`), accepted (`pending`), or lost by Kafka since (`expired`)."""

    command_id: UUID
    org_id: UUID | None
    status: UndecidedStatus
    actor: str | None
    """Whoever was promised an answer; None of a parked command where nobody was."""
    request_digest: bytes | None
    """Only of a parked one."""
    since: datetime


class NewOutcome(NamedTuple):
    """A row to write, in the column order of the statement; its position comes from the head."""

    command_id: UUID
    org_id: UUID | None
    version: int | None
    command_type: str
    event_type: str | None
    outcome: str
    code: int
    actor: str | None
    request_digest: bytes
    command_partition: int
    command_offset: int
    changed: str | None
    before: str | None
    after: str | None
    problem: str | None
    traceparent: str | None
    recorded_at: datetime
    command_time_ms: int | None


class KeptRecord(NamedTuple):
    """A record to set aside, in the column order of the statement."""

    topic: str
    partition: int
    offset: int
    broker_time: datetime
    key: bytes | None
    value: bytes | None
    headers: str
    org_id: UUID | None
    command_id: UUID | None
    request_digest: bytes | None
    reason: ParkReason
    detail: str
    actor: str | None
    authenticated_by: AuthenticatedBy | None
    value_bytes: int | None
    value_sha256: str | None


class StoredRecord(NamedTuple):
    """A record that was set aside, as it is kept: `KeptRecord` once more, and what became of it since."""

    id: int
    """Grows in the order in which records were set aside: of one organization, the order of its queue."""
    topic: str
    partition: int
    offset: int
    broker_time: datetime
    key: bytes | None
    value: bytes | None
    headers: str
    org_id: UUID | None
    command_id: UUID | None
    request_digest: bytes | None
    reason: ParkReason
    detail: str
    attempts: int
    """The first try counts: one more than the releases that failed."""
    state: ParkedState
    actor: str | None
    authenticated_by: AuthenticatedBy | None
    value_bytes: int | None
    recorded_at: datetime
    operation_id: UUID | None = None
    """The run that released or discarded it."""
    ended_at: datetime | None = None

    @property
    def exhausted(self) -> bool:
        """Whether it was released as often as a record may be."""
        return self.attempts > RELEASES_MAX


class JournaledOutcome(NamedTuple):
    """What there is to publish about one command. JSON columns are texts, ready to send."""

    position: int
    command_id: UUID
    org_id: UUID | None
    version: int | None
    event_type: str | None
    outcome: str
    code: int
    actor: str | None
    changed: str | None
    before: str | None
    after: str | None
    problem: str | None
    traceparent: str | None
    recorded_at: datetime
