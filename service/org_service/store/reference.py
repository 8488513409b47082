"""Reference data as tables: whole batches of facts written and taken back, and how far each topic partition is applied.

The progress is locked first and written last, in the transaction of the facts. Whoever comes with older records, a
worker that lost its partitions in a rebalance say, waits at the lock and then sees that they are old.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    column,
    delete,
    func,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Delete
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlmodel import SQLModel

from org_events import reference as contract
from org_service.store.tables import Membership, Partnership, ReferenceProgress, Staff

_PAGE_ROWS: Final = 10_000


class Place(NamedTuple):
    """A partition of a reference topic."""

    topic: str
    partition: int


class Progress(NamedTuple):
    """How far a partition is applied."""

    topic_id: UUID
    """Of the topic whose records were applied; a later topic of that name has another."""
    next_offset: int
    """Everything before it is in the tables, nothing from it on."""


class Counts(NamedTuple):
    """How many facts there are."""

    memberships: int
    partnerships: int
    staff: int


def _unnest(types: Mapping[str, Any]) -> TableValuedAlias:
    """`unnest($1::text[], $2::uuid[], …) AS given(user_id, org_id, …)`: a table made of one array a column."""
    arrays = [bindparam(f"given_{name}", type_=ARRAY(of)) for name, of in types.items()]
    columns = [column(name, of) for name, of in types.items()]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name="given")


def _arrays(fields: Collection[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    return {f"given_{name}": list(values) for name, values in zip(fields, zip(*rows, strict=True), strict=True)}


class FactTable:
    """One table of facts: a row is what a record says, the first columns are what its key names."""

    def __init__(self, model: type[SQLModel], types: Mapping[str, Any], keys: int) -> None:
        self._table = cast("Table", model.__table__)  # pyright: ignore[reportAttributeAccessIssue] - SQLModel's metaclass
        self.fields: Final = tuple(types)
        """Of a row, in order."""
        self.key_fields: Final = self.fields[:keys]
        self._upsert = self._make_upsert(types)
        self._delete = self._make_delete({name: types[name] for name in self.key_fields})

    async def upsert(self, conn: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write facts, new or changed ones; each key at most once. A row that is there as it is isn't touched.

        Raises:
            DBAPIError: Nothing of the transaction holds; `failures.classify` says what to do.
        """
        if rows:
            await conn.execute(self._upsert, _arrays(self.fields, rows))

    async def delete(self, conn: AsyncConnection, keys: Sequence[tuple[Any, ...]]) -> None:
        """Take facts back; one that isn't there is taken back already. Raises as `upsert`."""
        if keys:
            await conn.execute(self._delete, _arrays(self.key_fields, keys))

    async def keys(self, conn: AsyncConnection) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
        """The key fields of every fact, in order, a page of some thousand after the other."""
        columns = [self._table.c[name] for name in self.key_fields]
        page = select(*columns).order_by(*columns).limit(_PAGE_ROWS)
        after: tuple[Any, ...] | None = None
        while True:
            beyond = page if after is None else page.where(tuple_(*columns) > tuple_(*after))
            found = [tuple(row) for row in await conn.execute(beyond)]
            if found:
                yield found
            if len(found) < _PAGE_ROWS:
                return
            after = found[-1]

    async def count(self, conn: AsyncConnection) -> int:
        """How many facts there are; reads the whole table."""
        return await conn.scalar(select(func.count()).select_from(self._table)) or 0

    def _make_upsert(self, types: Mapping[str, Any]) -> Insert:
        given = _unnest(types)
        statement = insert(self._table).from_select(self.fields, select(*given.c))
        rest = [name for name in self.fields if name not in self.key_fields]
        if not rest:
            return statement.on_conflict_do_nothing(index_elements=self.key_fields)
        excluded = statement.excluded
        return statement.on_conflict_do_update(
            index_elements=self.key_fields,
            set_={name: excluded[name] for name in rest},
            # A topic that is read again changes nothing, so it should write nothing.
            where=or_(*(self._table.c[name].is_distinct_from(excluded[name]) for name in rest)),
        )

    def _make_delete(self, types: Mapping[str, Any]) -> Delete:
        given = _unnest(types)
        same: list[ColumnElement[bool]] = [self._table.c[name] == given.c[name] for name in types]
        return delete(self._table).where(and_(*same))


MEMBERSHIPS: Final = FactTable(
    Membership,
    {"user_id": Text, "org_id": Uuid, "role": Text, "joined_at": DateTime(timezone=True), "active": Boolean},
    keys=2,
)
PARTNERSHIPS: Final = FactTable(Partnership, {"partner_org_id": Uuid, "org_id": Uuid, "role": Text}, keys=2)
STAFF: Final = FactTable(Staff, {"user_id": Text}, keys=1)

FACT_TABLES: Final[Mapping[type[contract.Reference], FactTable]] = {
    contract.Membership: MEMBERSHIPS,
    contract.Partnership: PARTNERSHIPS,
    contract.Staff: STAFF,
}
"""Where the facts of each kind go; a table has the fields of the kind, in the same order."""


_progress = cast("Table", ReferenceProgress.__table__)  # pyright: ignore[reportAttributeAccessIssue] - as above
_PLACE_TYPES: Final[Mapping[str, Any]] = {"topic": Text, "partition": Integer}
_PROGRESS_TYPES: Final[Mapping[str, Any]] = {**_PLACE_TYPES, "topic_id": Uuid, "next_offset": BigInteger}
_places = _unnest(_PLACE_TYPES)
_begun = _unnest({**_PLACE_TYPES, "topic_id": Uuid})
_advanced = _unnest(_PROGRESS_TYPES)

_LOCK: Final = (
    select(*_progress.c)
    .join_from(
        _progress, _places, and_(_progress.c.topic == _places.c.topic, _progress.c.partition == _places.c.partition)
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
    .values(topic_id=_advanced.c.topic_id, next_offset=_advanced.c.next_offset)
)
_CONFIRM_TYPES: Final[Mapping[str, Any]] = {**_PLACE_TYPES, "ago_s": Double}
_confirmed = _unnest(_CONFIRM_TYPES)
_CONFIRM: Final = (
    update(_progress)
    .where(_progress.c.topic == _confirmed.c.topic, _progress.c.partition == _confirmed.c.partition)
    .values(confirmed_at=_now - _confirmed.c.ago_s * text("interval '1 second'"))
)
_AGES: Final = select(
    _progress.c.topic, _progress.c.partition, func.extract("epoch", _now - _progress.c.confirmed_at).label("age_s")
)


async def begin_progress(conn: AsyncConnection, topic_ids: Mapping[Place, UUID]) -> None:
    """Make the rows of partitions that nobody has read yet, at offset 0, so that there is something to lock.

    They are confirmed as of now: nothing that was said there before is in the tables.
    """
    if topic_ids:
        rows = [(*place, topic_id) for place, topic_id in sorted(topic_ids.items())]
        await conn.execute(_BEGIN, _arrays([*_PLACE_TYPES, "topic_id"], rows))


async def lock_progress(conn: AsyncConnection, places: Collection[Place]) -> dict[Place, Progress]:
    """Lock how far these partitions are applied until the transaction ends, and read it.

    In order of topic and partition, so that two workers can't wait for each other; partitions without a row are
    left out.
    """
    if not places:
        return {}
    rows = await conn.execute(_LOCK, _arrays(tuple(_PLACE_TYPES), list(places)))
    return {Place(row.topic, row.partition): Progress(row.topic_id, row.next_offset) for row in rows}


async def read_progress(conn: AsyncConnection) -> dict[Place, Progress]:
    """How far every partition is applied, as of now: nothing is locked."""
    rows = await conn.execute(select(*_progress.c))
    return {Place(row.topic, row.partition): Progress(row.topic_id, row.next_offset) for row in rows}


async def write_progress(conn: AsyncConnection, progress: Mapping[Place, Progress]) -> None:
    """Note how far these partitions are applied; their rows are there, and locked by this transaction."""
    if progress:
        rows = [(*place, *reached) for place, reached in progress.items()]
        await conn.execute(_WRITE, _arrays(tuple(_PROGRESS_TYPES), rows))


async def confirm(conn: AsyncConnection, ago_s: Mapping[Place, float]) -> None:
    """Note that so many seconds ago the tables held all that these partitions held; their rows are locked."""
    if ago_s:
        await conn.execute(_CONFIRM, _arrays(tuple(_CONFIRM_TYPES), [(*place, ago) for place, ago in ago_s.items()]))


async def read_ages(conn: AsyncConnection) -> dict[Place, float | None]:
    """How many seconds ago each partition was confirmed, by Postgres' clock; None where nobody knows."""
    rows = await conn.execute(_AGES)
    return {Place(row.topic, row.partition): None if row.age_s is None else float(row.age_s) for row in rows}


async def count_facts(conn: AsyncConnection) -> Counts:
    """Count all facts. Reads the tables whole."""
    return Counts(await MEMBERSHIPS.count(conn), await PARTNERSHIPS.count(conn), await STAFF.count(conn))
