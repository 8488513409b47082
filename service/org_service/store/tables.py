"""The tables, as SQLModel classes. What they mean and why: design of the data model in `docs/operating.md`.

`journal` is inbox (a command id appears once), outbox (the relay reads it in order of `position`) and audit trail
in one. It holds the JSON of `before` and `after` as text, ready to send, so that the relay joins bytes and parses
nothing; an organization's journal position is the row of its (id, version), not a column of its own, because
positions are taken last, as a rule after the organizations are written.
"""

# SQLModel declares __tablename__ as a declared_attr.
# pyright: reportAssignmentType=false

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from org_events.reference import Role
from org_events.results import Outcome
from org_service.domain.reasons import (
    AuthenticatedBy,
    ConsoleAct,
    LossReason,
    OperationState,
    ParkedState,
    ParkReason,
    TicketKind,
)

NAME_KEY_CONSTRAINT: Final = "organization_name_key_key"
COMMAND_ID_CONSTRAINT: Final = "journal_command_id_key"
ORGANIZATION_KEY: Final = "organization_pkey"
BYTE_ORDER: Final = "C"
"""Collation of what is searched by its beginning and paged through: one order everywhere, served by plain indexes."""
JOURNAL_CHANNEL: Final = "orgs_journal"
"""NOTIFY channel that wakes the relay."""


def _one_of(column: str, values: Iterable[StrEnum]) -> str:
    words = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({words})"


_ROLES: Final = _one_of("role", Role)
_FINAL: Final = (Outcome.APPLIED, Outcome.UNCHANGED, Outcome.REJECTED)
_OPEN: Final = f"state = '{ParkedState.OPEN}'"
_UNDER_WAY: Final = _one_of("state", (OperationState.RUNNING, OperationState.PAUSED))


def _moment(*, nullable: bool) -> Column[datetime]:
    return Column(DateTime(timezone=True), nullable=nullable)


class OrganizationRow(SQLModel, table=True):
    """The organizations: deleted ones too, so that they can be restored, and erased ones, so that their ids stay taken.

    An erased one has an empty name, as no other can have.
    """

    __tablename__ = "organization"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        # Deferred: two organizations may swap names inside one set-based update.
        UniqueConstraint("name_key", name=NAME_KEY_CONSTRAINT, deferrable=True, initially="DEFERRED"),
        CheckConstraint("version >= 1", name="organization_version_check"),
        CheckConstraint("(name_key IS NULL) = (deleted_at IS NOT NULL)", name="organization_name_key_check"),
        CheckConstraint(
            "name <> '' OR (deleted_at IS NOT NULL AND domain IS NULL AND primary_address IS NULL)",
            name="organization_erased_check",
        ),
        # Deleted ones, which operators look for by the name that they had.
        Index("organization_deleted_name_idx", text("lower(name)"), postgresql_where=text("deleted_at IS NOT NULL")),
        # Lists for staff, who see every active organization: in order of creation, and by the beginning of the domain.
        # What else a search looks at is included, so that it reads thousands of them from the index alone.
        Index(
            "organization_created_at_idx",
            "created_at",
            "id",
            postgresql_include=["name_key", "domain"],
            postgresql_where=text("deleted_at IS NULL AND deactivated_at IS NULL"),
        ),
        Index(
            "organization_domain_idx",
            "domain",
            postgresql_include=["name_key", "created_at", "id"],
            postgresql_where=text("deleted_at IS NULL AND deactivated_at IS NULL"),
        ),
        # Room on the page lets an update that changes no indexed column stay there (HOT).
        {"postgresql_with": {"fillfactor": 70}},
    )

    id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    name: str = Field(sa_column=Column(Text, nullable=False))
    name_key: str | None = Field(sa_column=Column(Text(collation=BYTE_ORDER)))
    domain: str | None = Field(sa_column=Column(Text(collation=BYTE_ORDER)))
    primary_address: dict[str, Any] | None = Field(sa_column=Column(JSONB(none_as_null=True)))
    created_at: datetime = Field(sa_column=_moment(nullable=False))
    updated_at: datetime = Field(sa_column=_moment(nullable=False))
    deactivated_at: datetime | None = Field(sa_column=_moment(nullable=True))
    deleted_at: datetime | None = Field(sa_column=_moment(nullable=True))
    version: int = Field(sa_column=Column(BigInteger, nullable=False))


class JournalRow(SQLModel, table=True):
    """One row a command that was decided. Never deleted, and never updated by the service's roles.

    Of an erased organization (`erasing`) the rows are there and say nothing of it: `before`, `after` and `actor` are
    null, `request_digest` is empty, and a problem has no more than its type. The last is its `org.erased`.
    """

    __tablename__ = "journal"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        # guarantee 1: whatever else fails, Postgres accepts one outcome per command id.
        UniqueConstraint("command_id", name=COMMAND_ID_CONSTRAINT),
        # guarantee 4: one event per version, whatever happens elsewhere; also the index of an organization's history.
        Index(
            "journal_org_id_version_key",
            "org_id",
            "version",
            unique=True,
            postgresql_where=text("event_type IS NOT NULL"),
        ),
        # Of an organization that is erased, the rows that changed nothing. Applied commands don't pay for it.
        Index(
            "journal_org_id_unchanged_idx",
            "org_id",
            postgresql_where=text("event_type IS NULL AND org_id IS NOT NULL"),
        ),
        CheckConstraint(_one_of("outcome", _FINAL), name="journal_outcome_check"),
        CheckConstraint(f"(event_type IS NOT NULL) = (outcome = '{Outcome.APPLIED}')", name="journal_event_type_check"),
    )

    position: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    command_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    org_id: UUID | None = Field(sa_column=Column(Uuid))
    version: int | None = Field(sa_column=Column(BigInteger))
    command_type: str = Field(sa_column=Column(Text, nullable=False))
    event_type: str | None = Field(sa_column=Column(Text))
    outcome: str = Field(sa_column=Column(Text, nullable=False))
    code: int = Field(sa_column=Column(SmallInteger, nullable=False))
    actor: str | None = Field(sa_column=Column(Text))
    request_digest: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    command_partition: int = Field(sa_column=Column(Integer, nullable=False))
    command_offset: int = Field(sa_column=Column(BigInteger, nullable=False))
    changed: str | None = Field(sa_column=Column(Text))
    """JSON array of field names; null where nothing changed."""
    before: str | None = Field(sa_column=Column(Text))
    """JSON of the organization before the change; null where there was none, or nothing changed."""
    after: str | None = Field(sa_column=Column(Text))
    """JSON of the organization after an applied or unchanged command; null after a delete and when rejected."""
    problem: str | None = Field(sa_column=Column(Text))
    """JSON of the problem of a rejected command."""
    traceparent: str | None = Field(sa_column=Column(Text))
    recorded_at: datetime = Field(sa_column=_moment(nullable=False))
    command_time_ms: int | None = Field(default=None, sa_column=Column(BigInteger))
    """By the broker's clock, milliseconds since 1970: a topic that is created again, or lost its end, gives offsets out
    again. Null in rows older than the column."""


class JournalHeadRow(SQLModel, table=True):
    """The last position given out: one row, whose lock makes positions gapless in commit order (guarantee 4)."""

    __tablename__ = "journal_head"
    __table_args__: ClassVar[tuple[Any, ...]] = (CheckConstraint("id = 1", name="journal_head_id_check"),)

    id: int = Field(sa_column=Column(SmallInteger, primary_key=True, autoincrement=False))
    position: int = Field(sa_column=Column(BigInteger, nullable=False))


class JournalGapRow(SQLModel, table=True):
    """Positions that were published and whose rows are lost for good, as an operator decided (`recovery`)."""

    __tablename__ = "journal_gap"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint("first_position <= last_position", name="journal_gap_last_position_check"),
    )

    first_position: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    last_position: int = Field(sa_column=Column(BigInteger, nullable=False))
    noted_at: datetime = Field(sa_column=_moment(nullable=False))


class ParkedRow(SQLModel, table=True):
    """Records set aside for an operator, and the commands of the same organization that wait behind one."""

    __tablename__ = "parked"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        # With the time, because a topic that is created again, or lost its end, gives offsets out again.
        UniqueConstraint("topic", "partition", "offset", "broker_time", name="parked_coordinates_key"),
        Index("parked_org_id_idx", "org_id", "id", postgresql_where=text(f"{_OPEN} AND command_id IS NOT NULL")),
        Index("parked_command_id_idx", "command_id", postgresql_where=text("command_id IS NOT NULL")),
        Index("parked_loose_idx", "id", postgresql_where=text(f"{_OPEN} AND (command_id IS NULL OR org_id IS NULL)")),
        Index("parked_defect_idx", "id", postgresql_where=text(f"{_OPEN} AND reason = '{ParkReason.HANDLER_RAISED}'")),
        CheckConstraint(_one_of("state", ParkedState), name="parked_state_check"),
        CheckConstraint(_one_of("reason", ParkReason), name="parked_reason_check"),
        CheckConstraint(_one_of("authenticated_by", AuthenticatedBy), name="parked_authenticated_by_check"),
        CheckConstraint("(value_bytes IS NULL) = (value_sha256 IS NULL)", name="parked_value_cut_check"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    topic: str = Field(sa_column=Column(Text, nullable=False))
    partition: int = Field(sa_column=Column(Integer, nullable=False))
    offset: int = Field(sa_column=Column(BigInteger, nullable=False))
    broker_time: datetime = Field(sa_column=_moment(nullable=False))
    key: bytes | None = Field(sa_column=Column(LargeBinary))
    value: bytes | None = Field(sa_column=Column(LargeBinary))
    headers: str = Field(sa_column=Column(Text, nullable=False))
    """JSON array of [name, Base64 of the value or null], in order. Never a token: who was verified is in `actor`."""
    org_id: UUID | None = Field(sa_column=Column(Uuid))
    command_id: UUID | None = Field(sa_column=Column(Uuid))
    request_digest: bytes | None = Field(sa_column=Column(LargeBinary))
    reason: str = Field(sa_column=Column(Text, nullable=False))
    detail: str = Field(sa_column=Column(Text, nullable=False))
    attempts: int = Field(default=1, sa_column=Column(Integer, nullable=False))
    state: str = Field(default=ParkedState.OPEN, sa_column=Column(Text, nullable=False))
    recorded_at: datetime = Field(sa_column=_moment(nullable=False))
    actor: str | None = Field(sa_column=Column(Text))
    """Whose command it is."""
    authenticated_by: str | None = Field(sa_column=Column(Text))
    """`token`: the actor is the user of a token that was verified as of `broker_time`. `publisher`: the actor is whom a
    trusted publisher named. Null: nobody was verified."""
    value_bytes: int | None = Field(sa_column=Column(Integer))
    """How long a value was of which only the beginning is kept; null where all of it is."""
    value_sha256: str | None = Field(sa_column=Column(Text))
    """Its digest in hex, where `value_bytes` is given."""
    operation_id: UUID | None = Field(default=None, sa_column=Column(Uuid))
    """The run that released or discarded it."""
    ended_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    """When that was; null while it is open."""


class MembershipRow(SQLModel, table=True):
    """Which users belong to which organizations; an organization need not be there (yet)."""

    __tablename__ = "membership"
    __table_args__: ClassVar[tuple[Any, ...]] = (CheckConstraint(_ROLES, name="membership_role_check"),)

    user_id: str = Field(sa_column=Column(Text(collation=BYTE_ORDER), primary_key=True))
    org_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    role: str = Field(sa_column=Column(Text, nullable=False))
    joined_at: datetime = Field(sa_column=_moment(nullable=False))
    active: bool = Field(sa_column=Column(Boolean, nullable=False))


class PartnershipRow(SQLModel, table=True):
    """Which organizations serve which others."""

    __tablename__ = "partnership"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint(_ROLES, name="partnership_role_check"),
        Index("partnership_org_id_idx", "org_id"),
    )

    partner_org_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    org_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    role: str = Field(sa_column=Column(Text, nullable=False))


class StaffRow(SQLModel, table=True):
    """Who works for whoever runs the platform."""

    __tablename__ = "staff"

    user_id: str = Field(sa_column=Column(Text(collation=BYTE_ORDER), primary_key=True))


class ReferenceProgressRow(SQLModel, table=True):
    """How far each partition of the reference topics is applied: written with the data, so each record counts once."""

    __tablename__ = "reference_progress"

    topic: str = Field(sa_column=Column(Text, primary_key=True))
    partition: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    topic_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    """Kafka's own: a topic that was deleted and created again has another, and its offsets begin at 0."""
    next_offset: int = Field(sa_column=Column(BigInteger, nullable=False))
    confirmed_at: datetime | None = Field(default=None, sa_column=_moment(nullable=True))
    """When the tables were last known to hold all that the partition held then, by Postgres' clock, which a restored
    database has from its backup; null where that was never known, or is not to be believed."""
    leader_epoch: int | None = Field(default=None, sa_column=Column(Integer))
    """Of the partition's leader, when it was read up to the offset; null where no release has noted it."""


class AcceptedCommandRow(SQLModel, table=True):
    """Commands that the edge answered with 202: pending until the journal has them. Kept as long as commands are."""

    __tablename__ = "accepted_command"
    __table_args__: ClassVar[tuple[Any, ...]] = (Index("accepted_command_accepted_at_idx", "accepted_at"),)

    command_id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    actor: str = Field(sa_column=Column(Text, nullable=False))
    org_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    accepted_at: datetime = Field(sa_column=_moment(nullable=False))
    partition: int | None = Field(default=None, sa_column=Column(Integer))
    offset: int | None = Field(default=None, sa_column=Column(BigInteger))
    """Where Kafka has it; null where an older release wrote the row."""


class LostRangeRow(SQLModel, table=True):
    """Offsets of `orgs.commands` that are gone and that no worker may have read (`losses`)."""

    __tablename__ = "lost_range"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        UniqueConstraint(
            "topic",
            "topic_id",
            "partition",
            "from_offset",
            "to_offset",
            "why",
            name="lost_range_what_key",
            postgresql_nulls_not_distinct=True,
        ),
        CheckConstraint(_one_of("why", LossReason), name="lost_range_why_check"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    topic: str = Field(sa_column=Column(Text, nullable=False))
    topic_id: UUID = Field(sa_column=Column(Uuid, nullable=False))
    partition: int = Field(sa_column=Column(Integer, nullable=False))
    from_offset: int = Field(sa_column=Column(BigInteger, nullable=False))
    to_offset: int | None = Field(sa_column=Column(BigInteger))
    why: str = Field(sa_column=Column(Text, nullable=False))
    noticed_at: datetime = Field(sa_column=_moment(nullable=False))


class OperationRow(SQLModel, table=True):
    """What operators plan and run, and the record of who did what and why. Never deleted (guarantee 9)."""

    __tablename__ = "operation"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint(_one_of("state", OperationState), name="operation_state_check"),
        CheckConstraint("reason <> '' OR state = 'planned'", name="operation_reason_check"),
        # guarantee 9: of what works on the same thing, one is under way.
        Index("operation_resource_key", "resource", unique=True, postgresql_where=text(_UNDER_WAY)),
        Index("operation_created_at_idx", "created_at"),
    )

    id: UUID = Field(sa_column=Column(Uuid, primary_key=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    parameters: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    resource: str = Field(sa_column=Column(Text, nullable=False))
    """What it works on: operations on the same wait for each other."""
    items: int = Field(sa_column=Column(BigInteger, nullable=False))
    digest: str = Field(sa_column=Column(Text, nullable=False))
    """Of all that it would touch, in hex."""
    facts: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    """What the plan stands on, by name."""
    sample: list[Any] = Field(sa_column=Column(JSONB, nullable=False))
    """The first things that it would touch."""
    reason: str = Field(sa_column=Column(Text, nullable=False))
    requested_by: str = Field(sa_column=Column(Text, nullable=False))
    approved_by: str | None = Field(sa_column=Column(Text))
    state: str = Field(sa_column=Column(Text, nullable=False))
    asked_for: str | None = Field(sa_column=Column(Text))
    """`paused` or `cancelled`, from whoever doesn't run it."""
    detached: bool = Field(sa_column=Column(Boolean, nullable=False))
    """Left to a process of the role `operate`."""
    progress: Any = Field(sa_column=Column(JSONB(none_as_null=True)))
    """From where it continues; null at the beginning."""
    done: int = Field(sa_column=Column(BigInteger, nullable=False))
    counts: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    """What became of the items that are done."""
    rate_per_second_max: float | None = Field(sa_column=Column(Double))
    runner: str | None = Field(sa_column=Column(Text))
    """The process that runs it."""
    leased_until: datetime | None = Field(sa_column=_moment(nullable=True))
    """After this it is taken for dead, and another process may continue."""
    error: str | None = Field(sa_column=Column(Text))
    created_at: datetime = Field(sa_column=_moment(nullable=False))
    expires_at: datetime = Field(sa_column=_moment(nullable=False))
    started_at: datetime | None = Field(sa_column=_moment(nullable=True))
    ended_at: datetime | None = Field(sa_column=_moment(nullable=True))
    notes: list[Any] = Field(sa_column=Column(JSONB, nullable=False, server_default=text("'[]'")))
    """What an operator should know before; a line each."""


class MarkRow(SQLModel, table=True):
    """Moments that operators name, to say "since then" and "until then" later."""

    __tablename__ = "mark"

    name: str = Field(sa_column=Column(Text(collation=BYTE_ORDER), primary_key=True))
    position: int = Field(sa_column=Column(BigInteger, nullable=False))
    """The last one of the journal then."""
    topics: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    """Their ids and the ends of their partitions."""
    groups: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))
    """What consumer groups had committed in them."""
    marked_at: datetime = Field(sa_column=_moment(nullable=False))
    marked_by: str = Field(sa_column=Column(Text, nullable=False))
    reason: str = Field(sa_column=Column(Text, nullable=False))


class ConsoleTicketRow(SQLModel, table=True):
    """Secrets of the operators' page that are still worth something, as digests: who reads the table can use none."""

    __tablename__ = "console_ticket"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint(_one_of("kind", TicketKind), name="console_ticket_kind_check"),
        Index("console_ticket_expires_at_idx", "expires_at"),
    )

    digest: bytes = Field(sa_column=Column(LargeBinary, primary_key=True))
    kind: str = Field(sa_column=Column(Text, nullable=False))
    user_id: str = Field(sa_column=Column(Text, nullable=False))
    expires_at: datetime = Field(sa_column=_moment(nullable=False))


class ConsoleActRow(SQLModel, table=True):
    """What was done on the operators' page, by whom. Never changed, never deleted."""

    __tablename__ = "console_act"
    __table_args__: ClassVar[tuple[Any, ...]] = (
        CheckConstraint(_one_of("act", ConsoleAct), name="console_act_act_check"),
        Index("console_act_operation_id_idx", "operation_id"),
    )

    id: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    user_id: str = Field(sa_column=Column(Text, nullable=False))
    act: str = Field(sa_column=Column(Text, nullable=False))
    operation_id: UUID | None = Field(default=None, sa_column=Column(Uuid))
    """What it was done to; null for a sign-in."""
    acted_at: datetime = Field(sa_column=_moment(nullable=False))
