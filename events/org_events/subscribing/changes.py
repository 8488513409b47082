"""What a subscriber is handed: one change of one organization, decoded when somebody looks at it.

Most subscribers want a few fields of a few changes, and a first load has a million of them: so a change keeps the bytes
it came as, and what is read of them is read once.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, Generic, Protocol, TypeVar, cast
from uuid import UUID

from pydantic_core import from_json

from org_events.events import EventType
from org_events.organization import Organization

Session = TypeVar("Session")
"""What a store's transaction gives: a connection or session of the subscriber's own database."""

Headers = Sequence[tuple[str, bytes | None]]

FIELDS: Final = frozenset({"name", "domain", "primary_address", "deactivated"})
"""What `changed` names. Of a change that stands for several, any of them may have changed."""
TYPE_HEADER: Final = "ce_type"
VERSION_HEADER: Final = "ce_orgversion"
POSITION_HEADER: Final = "ce_position"
_ENDINGS: Final = frozenset({EventType.DELETED.value, EventType.ERASED.value})
_KNOWN: Final = frozenset(EventType)


class Kind(StrEnum):
    """How a change became known."""

    EVENT = "event"
    """As it was published: the next version after the one before."""
    LOADED = "loaded"
    """From `orgs.state`: it stands for all that happened before."""
    HEALED = "healed"
    """An event whose predecessors this subscriber never saw: it stands for them, too."""
    GONE = "gone"
    """Deleted while this subscriber was away for longer than Kafka keeps deletions; computed, at an unknown version."""


class Record(Protocol):
    """A record of Kafka, as far as a subscriber reads it."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


class Keeper(Protocol[Session]):
    """Whoever saves how far a subscriber is."""

    def transaction(self, *changes: "Change[Session]") -> AbstractAsyncContextManager[Session]:
        """See `Change.transaction`; of several that were handed out one after the other."""
        ...


class Change(Generic[Session]):
    """One change of one organization; read only.

    Attributes:
        kind: How it became known.
        type: The event's (`org.updated`, or one that this package doesn't know yet); None where `kind` is `LOADED` or
            `GONE`, which stand for any.
        version: Of the organization after the change; of `GONE` the last one that was known.
    """

    def __init__(
        self,
        keeper: Keeper[Session],
        kind: Kind,
        key: bytes,
        version: int,
        record: Record | None,
        *,
        event_type: str | None = None,
    ) -> None:
        self._keeper = keeper
        self._record = record
        self.kind = kind
        self.key = key
        self.version = version
        self.type = event_type

    def __repr__(self) -> str:
        return f"<Change {self.type or self.kind.value} of {self.key.decode()}, version {self.version}>"

    @cached_property
    def org_id(self) -> UUID:
        """Of the organization."""
        return UUID(self.key.decode())

    @property
    def value(self) -> bytes | None:
        """The record's value as it came: an event, of `LOADED` an organization; None says that it is deleted."""
        return None if self._record is None else self._record.value

    @property
    def headers(self) -> Headers:
        """The record's; of `GONE` there are none."""
        return () if self._record is None else self._record.headers

    @property
    def offset(self) -> int:
        """Of the record; -1 where it is not in a log (any more)."""
        return -1 if self._record is None else self._record.offset

    @property
    def position(self) -> int | None:
        """In the service's journal; None of `GONE`."""
        position = dict(self.headers).get(POSITION_HEADER)
        return None if position is None else int(position)

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """The record's JSON, members that this package doesn't know included; empty where there is none."""
        return {} if self.value is None else cast("Mapping[str, Any]", from_json(self.value))

    @cached_property
    def before(self) -> Organization | None:
        """The organization before; None if it did not exist, or where only the state after it is known."""
        return None if self.type is None else _organization(self.body.get("before"))

    @cached_property
    def after(self) -> Organization | None:
        """The organization after; None if it is deleted."""
        return _organization((self.body or None) if self.type is None else self.body.get("after"))

    @cached_property
    def changed(self) -> frozenset[str]:
        """Those of `FIELDS` that differ; all of them where the change stands for several."""
        return frozenset(cast("list[str]", self.body.get("changed", ()))) if self.kind is Kind.EVENT else FIELDS

    @property
    def actor(self) -> str | None:
        """Who made the change, where that is told."""
        return None if self.type is None else self.body.get("actor")

    @property
    def recorded_at(self) -> datetime | None:
        """When the change was made, UTC; None where only the state after it is known."""
        return None if self.type is None else datetime.fromisoformat(self.body["recorded_at"])

    def deletes(self) -> bool:
        """Whether the organization does not exist after it. Decodes nothing, but of types that aren't known."""
        if self.type is None:
            return self.value is None
        return self.type in _ENDINGS or (self.type not in _KNOWN and self.body.get("after") is None)

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """A transaction of the subscriber's own store, which also saves that this change was handled.

            async with change.transaction() as session:
                await session.execute("UPDATE customer SET …")

        Both are there or neither: where it commits, this change never comes again.

        Raises:
            Superseded: On leaving it: another process has the partition now. Nothing was written; go on.
        """
        return self._keeper.transaction(self)


def _organization(content: object) -> Organization | None:
    return None if content is None else Organization.model_validate(content)
