"""Which parked records an operator means: all that match, not those on a page of a list."""

from hashlib import blake2b
from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict

from org_service.domain.outcomes import StoredRecord
from org_service.domain.reasons import ParkedState, ParkReason
from org_service.errors import PreconditionError
from org_service.store import parked_queues
from org_service.store.database import Database
from org_service.store.parked_queues import ParkedFilter, ParkedGroup

_NAME_BYTES: Final = 4
"""Of a fingerprint's name: enough to tell apart what is parked at one time."""


class ParkedSelection(BaseModel):
    """Open records: all conditions hold, and what is empty is not asked for."""

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

    async def pinned(self, database: Database) -> "ParkedSelection":
        """The same with an end."""
        async with database.connect() as conn:
            last = await parked_queues.read_last_id(conn)
        return self.model_copy(update={"through_id": last})

    async def of_group(self, database: Database, name: str) -> "ParkedSelection":
        """The same, of one group of `orgs parked`.

        Raises:
            PreconditionError: No group has this name now.
        """
        async with database.connect() as conn:
            groups = await parked_queues.group(conn)
        found = next((each for each in groups if name_group(each) == name), None)
        if found is None:
            raise PreconditionError(f"nothing is parked in a group {name!r}; `orgs parked` lists the groups.")
        reason = ParkReason(found.reason)
        same = {"topic": found.topic, "reason": reason, "cause": found.cause, "exhausted": found.exhausted}
        return self.model_copy(update=same)

    def as_filter(self) -> ParkedFilter:
        """For the database."""
        assert self.through_id is not None
        return ParkedFilter(
            through_id=self.through_id,
            ids=self.ids or None,
            org_ids=self.org_ids or None,
            command_ids=self.command_ids or None,
            topic=self.topic,
            reason=self.reason,
            cause=self.cause,
            exhausted=self.exhausted,
            from_time=self.from_time,
            to_time=self.to_time,
        )


async def find_open(database: Database, parked_id: int) -> StoredRecord:
    """Read a record that is open.

    Raises:
        PreconditionError: It is not; the message says what became of it.
    """
    async with database.connect() as conn:
        stored = await parked_queues.find(conn, parked_id)
    if stored is None:
        raise PreconditionError(f"there is no parked record {parked_id}; `orgs parked list --all` has them all.")
    if stored.state != ParkedState.OPEN:
        raise PreconditionError(f"record {parked_id} was {stored.state} already.")
    return stored


def name_group(group: ParkedGroup) -> str:
    """The fingerprint of a group: the same cause always has the same one."""
    identity = "\n".join((group.topic, group.reason, group.cause, str(group.exhausted))).encode()
    return blake2b(identity, digest_size=_NAME_BYTES).hexdigest()
