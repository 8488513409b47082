"""Which parked records an operator means: all that match, not those on a page of a list."""

from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from org_service.domain.outcomes import StoredRecord
from org_service.domain.reasons import ParkedState, ParkReason
from org_service.errors import PreconditionError
from org_service.operate import marks
from org_service.store import parked_queues
from org_service.store.database import DatabaseConnection
from org_service.store.parked_queues import ParkedFilter, ParkedGroup

_NAME_BYTES: Final = 4
"""Of a fingerprint's name: enough to tell apart what is parked at one time."""


class ParkedSelection(BaseModel):
    """Records: all conditions hold, and what is empty is not asked for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    through_id: int | None = None
    """The last one that was there when it was planned; what is parked later is not meant."""
    ids: tuple[int, ...] = ()
    org_ids: tuple[UUID, ...] = ()
    command_ids: tuple[UUID, ...] = ()
    topic: str | None = None
    reason: ParkReason | None = None
    cause: str | None = None
    exhausted: bool | None = None
    from_time: AwareDatetime | None = None
    to_time: AwareDatetime | None = None

    async def complete(
        self, conn: DatabaseConnection, *, group: str | None, from_mark: str | None, to_mark: str | None
    ) -> "ParkedSelection":
        """The same with what has to be looked up.

        Args:
            conn: To read with.
            group: The name of a group of `orgs parked`: only what is in it.
            from_mark: Parked at this mark, or later.
            to_mark: Parked before this mark.

        Raises:
            PreconditionError: There is no such group or mark now.
        """
        found: dict[str, Any] = {}
        if from_mark is not None:
            found["from_time"] = (await marks.find(conn, from_mark)).marked_at
        if to_mark is not None:
            found["to_time"] = (await marks.find(conn, to_mark)).marked_at
        if group is not None:
            named = [each for each in await parked_queues.group(conn) if name_group(each) == group]
            if not named:
                raise PreconditionError(f"nothing is parked in a group {group!r}; `orgs parked` lists the groups.")
            found |= {name: getattr(named[0], name) for name in ("topic", "cause", "exhausted")}
            found["reason"] = ParkReason(named[0].reason)
        return self.model_copy(update=found)

    async def pinned(self, conn: DatabaseConnection) -> "ParkedSelection":
        """The same with an end: what is parked from now on is not meant.

        Raises:
            PreconditionError: A record that is named is not open.
        """
        for parked_id in self.ids:
            await find_open(conn, parked_id)
        return self.model_copy(update={"through_id": await parked_queues.read_last_id(conn)})

    def as_filter(self, state: ParkedState | None = ParkedState.OPEN) -> ParkedFilter:
        """For the database."""
        return ParkedFilter(state, **{name: value for name, value in self if value != ()})


async def find(conn: DatabaseConnection, parked_id: int) -> StoredRecord:
    """Read a parked record, whatever became of it.

    Raises:
        PreconditionError: There is none.
    """
    found = await parked_queues.select_records(conn, ParkedFilter(ids=[parked_id]), 0, 1)
    if not found:
        raise PreconditionError(f"there is no parked record {parked_id}; `orgs parked list --all` has them all.")
    return found[0]


async def find_open(conn: DatabaseConnection, parked_id: int) -> StoredRecord:
    """Read a record that is open.

    Raises:
        PreconditionError: It is not; the message says what became of it.
    """
    stored = await find(conn, parked_id)
    if stored.state != ParkedState.OPEN:
        raise PreconditionError(f"record {parked_id} was {stored.state} already.")
    return stored


def name_group(group: ParkedGroup) -> str:
    """The fingerprint of a group: the same cause always has the same one."""
    identity = "\n".join((group.topic, group.reason, group.cause, str(group.exhausted))).encode()
    return blake2b(identity, digest_size=_NAME_BYTES).hexdigest()
