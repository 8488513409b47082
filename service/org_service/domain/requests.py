"""One command as it was asked for: a record that was read, or what is wrong with it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

from org_events.commands import Command
from org_events.results import ProblemType
from org_service.domain.decide import Invalid
from org_service.domain.reasons import ParkReason

LOG_APPEND_TIME: Final = 1
"""`timestamp_type` of a record that the broker stamped."""
_LATEST_MS: Final = 253_402_300_799_000
"""The end of the year 9999, in milliseconds since 1970."""


class Record(Protocol):
    """What we need of `aiokafka.ConsumerRecord`."""

    @property
    def topic(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> int: ...  # noqa: D102
    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102 - milliseconds since 1970, by the broker's clock
    @property
    def timestamp_type(self) -> int: ...  # noqa: D102 - 1 where the broker stamped it, 0 where the publisher did
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...  # noqa: D102


class Unreadable(NamedTuple):
    """A record to be set aside: not even its id can be read. `detail` says why, without a byte of the payload."""

    record: Record
    detail: str
    reason: ParkReason = ParkReason.UNREADABLE
    error: Exception | None = None
    """What our code raised, where it is not the record that is to blame."""


class Rejected(NamedTuple):
    """The record can't be read as a command (400), or comes from nobody (401)."""

    type: str
    detail: str
    problem: ProblemType = ProblemType.UNREADABLE


class Request(NamedTuple):
    """One readable record."""

    record: Record
    command_id: UUID
    org_id: UUID | None
    """None where neither key nor body name an organization."""
    command: Command | Invalid | Rejected
    digest: bytes
    """Of type and canonical body: the same for the same request, however it was spelled or sent."""
    actor: str | None
    """Who the publisher says; the token's user once that is known."""
    traceparent: str | None
    authorization: bytes | None = None
    """None where no such header is there: one without a value is a token that is rejected."""
    user_id: str | None = None
    """Of a verified token; None is a trusted publisher."""


class SetAside(NamedTuple):
    """A record that an operator must see, and what was read of it."""

    unreadable: Unreadable
    request: Request | None = None


def read_broker_time(record: Record) -> datetime:
    """When the broker took the record, UTC; within what a datetime can hold, where a publisher chose the time."""
    return read_time(record.timestamp)


def read_time(time_ms: int) -> datetime:
    """A time in milliseconds since 1970 as UTC; the nearest one that a datetime can hold."""
    return datetime.fromtimestamp(min(max(time_ms, 0), _LATEST_MS) / 1000, UTC)
