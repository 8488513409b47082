"""How far each partition of the reference topics is applied to the tables (`facts`).

The progress is locked first and written last, in the transaction of the facts. Whoever comes with older records, a
worker that lost its partitions in a rebalance say, waits at the lock and then sees that they are old.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import BigInteger, Double, Integer, Row, Table, Text, Uuid, and_, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.store.sql import arrays, unnest
from org_service.store.tables import ReferenceProgressRow


class ReferencePartition(NamedTuple):
    """A partition of a reference topic."""

    topic: str
    partition: int


class Progress(NamedTuple):
    """How far a partition is applied."""

    topic_id: UUID
    """Of the topic whose records were applied; a later topic of that name has another."""
    next_offset: int
    """Everything before it is in the tables, nothing from it on."""
    leader_epoch: int | None = None
    """Of the partition's leader, when it was read up to there; None where nobody noted it."""


_progress = cast("Table", ReferenceProgressRow.__table__)  # pyright: ignore[reportAttributeAccessIssue] - SQLModel's metaclass
_PARTITION_TYPES: Final[Mapping[str, Any]] = {"topic": Text, "partition": Integer}
_PROGRESS_TYPES: Final[Mapping[str, Any]] = {
    **_PARTITION_TYPES,
    "topic_id": Uuid,
    "next_offset": BigInteger,
    "leader_epoch": Integer,
}
_given = unnest(_PARTITION_TYPES)
_begun = unnest({**_PARTITION_TYPES, "topic_id": Uuid})
_advanced = unnest(_PROGRESS_TYPES)

_LOCK: Final = (
    select(*_progress.c)
    .join_from(
        _progress, _given, and_(_progress.c.topic == _given.c.topic, _progress.c.partition == _given.c.partition)
    )
    .order_by(_progress.c.topic, _progress.c.partition)
    .with_for_update(of=_progress)
)
_now = func.clock_timestamp()
_BEGIN: Final = (
    insert(_progress)
    .from_select(
        ["topic", "partition", "topic_id", "next_offset", "confirmed_at"],
        select(*_begun.c, literal(0), _now).order_by(*_begun.c),
    )
    .on_conflict_do_nothing()
)
_WRITE: Final = (
    update(_progress)
    .where(_progress.c.topic == _advanced.c.topic, _progress.c.partition == _advanced.c.partition)
    .values({name: _advanced.c[name] for name in Progress._fields})
)
_CONFIRM_TYPES: Final[Mapping[str, Any]] = {**_PARTITION_TYPES, "ago_s": Double}
_confirmed = unnest(_CONFIRM_TYPES)
_CONFIRM: Final = (
    update(_progress)
    .where(_progress.c.topic == _confirmed.c.topic, _progress.c.partition == _confirmed.c.partition)
    .values(confirmed_at=_now - _confirmed.c.ago_s * text("interval '1 second'"))
)
_READ: Final = select(*_progress.c)
_READ_AGES: Final = select(
    _progress.c.topic, _progress.c.partition, func.extract("epoch", _now - _progress.c.confirmed_at).label("age_s")
)


async def begin(conn: AsyncConnection, topic_ids: Mapping[ReferencePartition, UUID]) -> None:
    """Make the rows of partitions that nobody has read yet, at offset 0, so that there is something to lock.

    They are confirmed as of now: nothing that was said there before is in the tables.
    """
    if topic_ids:
        rows = [(*at, topic_id) for at, topic_id in sorted(topic_ids.items())]
        await conn.execute(_BEGIN, arrays([*_PARTITION_TYPES, "topic_id"], rows))


async def lock(conn: AsyncConnection, partitions: Collection[ReferencePartition]) -> dict[ReferencePartition, Progress]:
    """Lock how far these partitions are applied until the transaction ends, and read it.

    In order of topic and partition, so that two workers can't wait for each other; partitions without a row are
    left out.
    """
    if not partitions:
        return {}
    rows = await conn.execute(_LOCK, arrays(tuple(_PARTITION_TYPES), list(partitions)))
    return _by_partition(rows)


async def read(conn: AsyncConnection) -> dict[ReferencePartition, Progress]:
    """How far every partition is applied, as of now: nothing is locked."""
    return _by_partition(await conn.execute(_READ))


def _by_partition(rows: Iterable[Row[Any]]) -> dict[ReferencePartition, Progress]:
    return {
        ReferencePartition(row.topic, row.partition): Progress(row.topic_id, row.next_offset, row.leader_epoch)
        for row in rows
    }


async def write(conn: AsyncConnection, progress: Mapping[ReferencePartition, Progress]) -> None:
    """Note how far these partitions are applied; their rows are there, and locked by this transaction."""
    if progress:
        rows = [(*at, *reached) for at, reached in progress.items()]
        await conn.execute(_WRITE, arrays(tuple(_PROGRESS_TYPES), rows))


async def confirm(conn: AsyncConnection, ago_s: Mapping[ReferencePartition, float]) -> None:
    """Note that so many seconds ago the tables held all that these partitions held; their rows are locked."""
    if ago_s:
        await conn.execute(_CONFIRM, arrays(tuple(_CONFIRM_TYPES), [(*at, ago) for at, ago in ago_s.items()]))


async def read_ages(conn: AsyncConnection) -> dict[ReferencePartition, float | None]:
    """How many seconds ago each partition was confirmed, by Postgres' clock; None where nobody knows."""
    rows = await conn.execute(_READ_AGES)
    return {
        ReferencePartition(row.topic, row.partition): None if row.age_s is None else float(row.age_s) for row in rows
    }
