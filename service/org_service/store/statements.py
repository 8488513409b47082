"""The worker's statements: a batch of any size is a handful of them, each with one plan (`unnest`, COPY, no VALUES).

Order matters, and `worker.applier` keeps it: lock, then look for duplicates, then write, then take positions; where a
name changes hands take positions, then write.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from typing import cast as cast_to
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    LargeBinary,
    Text,
    Uuid,
    bindparam,
    cast,
    column,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlmodel import col

from org_service.domain.organization import Organization
from org_service.domain.outcomes import KeptRecord, KnownOutcome, NewOutcome
from org_service.store.engine import Session
from org_service.store.tables import (
    JOURNAL_CHANNEL,
    NAME_KEY_CONSTRAINT,
    Journal,
    JournalHead,
    Parked,
)
from org_service.store.tables import Organization as OrganizationTable

_ids = bindparam("ids", type_=ARRAY(Uuid))
_keys = bindparam("keys", type_=ARRAY(Text))

_organizations = select(*(getattr(OrganizationTable, field) for field in Organization._fields))
_LOCK_ORGANIZATIONS: Final = (
    _organizations.where(col(OrganizationTable.id) == func.any(_ids))
    .order_by(col(OrganizationTable.id))
    .with_for_update()
)
_LOCK_ORGANIZATIONS_AND_HOLDERS: Final = (
    _organizations.where(
        or_(col(OrganizationTable.id) == func.any(_ids), col(OrganizationTable.name_key) == func.any(_keys))
    )
    .order_by(col(OrganizationTable.id))
    .with_for_update()
)

_FIND_NAMES: Final = select(col(OrganizationTable.id), col(OrganizationTable.name)).where(
    col(OrganizationTable.id) == func.any(_ids)
)

_FIND_JOURNALED: Final = select(*(getattr(Journal, field) for field in KnownOutcome._fields)).where(
    col(Journal.command_id) == func.any(_ids)
)

# As text, so that the partial indexes match.
_open_command = (col(Parked.state) == text("'open'"), col(Parked.command_id).is_not(None))
_asked = (
    func.unnest(bindparam("org_ids", type_=ARRAY(Uuid)))
    .table_valued(column("org_id", Uuid))
    .render_derived(name="asked")
)
# One row an organization, however long its queue is.
_FIND_PARKED: Final = union_all(
    select(_asked.c.org_id, literal(None, LargeBinary)).where(
        exists().where(col(Parked.org_id) == _asked.c.org_id, *_open_command)
    ),
    select(col(Parked.command_id), col(Parked.request_digest)).where(
        col(Parked.command_id) == func.any(_ids), *_open_command
    ),
)

_waiting = (
    select(col(Parked.id))
    .where(col(Parked.org_id) == _asked.c.org_id, *_open_command)
    .limit(bindparam("rows_max", type_=BigInteger))
    .lateral("waiting")
)
_COUNT_PARKED: Final = select(_asked.c.org_id, func.count()).join(_waiting, true()).group_by(_asked.c.org_id)

_FIND_HOLDERS: Final = select(col(OrganizationTable.name_key), col(OrganizationTable.id)).where(
    col(OrganizationTable.name_key) == func.any(_keys)
)

_ORGANIZATION_TYPES: Final[dict[str, Any]] = {
    "id": Uuid,
    "name": Text,
    "name_key": Text,
    "domain": Text,
    "primary_address": Text,
    "created_at": DateTime(timezone=True),
    "updated_at": DateTime(timezone=True),
    "deactivated_at": DateTime(timezone=True),
    "deleted_at": DateTime(timezone=True),
    "version": BigInteger,
}


def _unnest(types: dict[str, Any]) -> TableValuedAlias:
    """`unnest($1::uuid[], $2::text[], …) AS given(id, name, …)`: a table made of one array a column."""
    arrays = [bindparam(f"given_{name}", type_=ARRAY(of)) for name, of in types.items()]
    columns = [column(name, of) for name, of in types.items()]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name="given")


_given = _unnest(_ORGANIZATION_TYPES)
_INSERT_ORGANIZATIONS: Final = insert(OrganizationTable).from_select(
    list(Organization._fields),
    select(*(cast(_given.c[f], JSONB) if f == "primary_address" else _given.c[f] for f in Organization._fields)),
)
_SAME_OR_KEPT: Final = ("updated_at", "created_at")
"""Of the organizations of one update: no arrays are sent for these."""
_moment = bindparam("given_moment", type_=DateTime(timezone=True))
_changed = _unnest({field: of for field, of in _ORGANIZATION_TYPES.items() if field not in _SAME_OR_KEPT})
_UPDATE_ORGANIZATIONS: Final = (
    update(OrganizationTable)
    .where(col(OrganizationTable.id) == _changed.c.id)
    .values(
        {c.name: cast(c, JSONB) if c.name == "primary_address" else c for c in _changed.c if c.name != "id"}
        | {"updated_at": func.greatest(col(OrganizationTable.updated_at), _moment)}
    )
)

_JOURNAL_COLUMNS: Final = ("position", *NewOutcome._fields)
_rows = bindparam("rows", type_=BigInteger)
_TAKE_POSITIONS: Final = (
    update(JournalHead)
    .values(position=col(JournalHead.position) + _rows)
    .returning(col(JournalHead.position) - _rows, func.pg_notify(JOURNAL_CHANNEL, ""))
)

_PARK: Final = postgresql_insert(Parked).on_conflict_do_nothing(constraint="parked_coordinates_key")

DEFECTS_COUNTED_MAX: Final = 10_000
"""More tell nobody more, and a health check may not take long."""
_COUNT_DEFECTS: Final = select(func.count()).select_from(
    select(col(Parked.id))
    .where(col(Parked.state) == text("'open'"), col(Parked.reason) == text("'handler_raised'"))
    .limit(DEFECTS_COUNTED_MAX)
    .subquery()
)

_CHECK_NAMES: Final = text(f"SET CONSTRAINTS {NAME_KEY_CONSTRAINT} IMMEDIATE")


_number = attrgetter("int")
"""Sorts UUIDs as Postgres does, five times as fast as comparing them."""


async def find_names(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, str]:
    """The names of organizations, deleted ones included; not locked, so they may change at once."""
    if not ids:
        return {}
    rows = await conn.execute(_FIND_NAMES, {"ids": list(ids)})
    return {row[0]: row[1] for row in rows}


async def lock_organizations(
    conn: AsyncConnection, ids: Collection[UUID], name_keys: Collection[str]
) -> dict[UUID, Organization]:
    """Lock organizations until the transaction ends, and read them: those of `ids`, and whoever holds a name.

    The holders are locked because a name that is refused as taken must still be taken at the refusal's place in the
    journal. Rows are locked in order of id, so that two workers can't wait for each other; ids and names without a
    row are left out.
    """
    ordered = sorted(ids, key=_number)
    if name_keys:
        rows = await conn.execute(_LOCK_ORGANIZATIONS_AND_HOLDERS, {"ids": ordered, "keys": list(name_keys)})
    else:
        rows = await conn.execute(_LOCK_ORGANIZATIONS, {"ids": ordered})
    return {row[0]: Organization._make(row) for row in rows}


async def find_journaled(conn: AsyncConnection, command_ids: Sequence[UUID]) -> dict[UUID, KnownOutcome]:
    """Which commands were decided already. Only after the locks: see the module's order."""
    rows = await conn.execute(_FIND_JOURNALED, {"ids": command_ids})
    return {row[0]: KnownOutcome._make(row) for row in rows}


async def find_parked(
    conn: AsyncConnection, org_ids: Collection[UUID], command_ids: Sequence[UUID], queued_max: int
) -> tuple[dict[UUID, int], dict[UUID, bytes]]:
    """Find the open parked commands of a batch.

    Args:
        conn: In the transaction that decides.
        org_ids: Organizations that may have some.
        command_ids: Which may be some.
        queued_max: How far the commands of one organization are counted.

    Returns:
        Which of these organizations have open parked commands, and how many; which of these commands are such, and
        their digests.
    """
    held: set[UUID] = set()
    parked: dict[UUID, bytes] = {}
    rows: Any = await conn.execute(_FIND_PARKED, {"org_ids": list(org_ids), "ids": command_ids})
    for found, digest in rows:
        if digest is None:
            held.add(found)
        else:
            parked[found] = digest
    counts: dict[UUID, int] = {}
    if held:  # an exception: how many there are isn't asked with the rest
        counted: Any = await conn.execute(_COUNT_PARKED, {"org_ids": list(held), "rows_max": queued_max})
        counts = dict.fromkeys(held, 1)
        counts.update((org_id, count) for org_id, count in counted)
    return counts, parked


async def find_holders(conn: AsyncConnection, name_keys: Collection[str]) -> dict[str, UUID]:
    """Who holds these names now."""
    if not name_keys:
        return {}
    rows = await conn.execute(_FIND_HOLDERS, {"keys": list(name_keys)})
    return {key: org_id for key, org_id in rows if key is not None}


async def take_positions(conn: AsyncConnection, rows: int) -> int:
    """Take the next positions of the journal, and wake the relay at the commit.

    From here to the commit this transaction holds the head's lock, which every other worker waits for: so last before
    `append_journal`; but before `write_organizations` where a name changes hands. Whoever writes a name waits in its
    unique index for everybody who is writing the same one, and of three such some wait for each other.

    Returns:
        The position before the first row.
    """
    result = await conn.execute(_TAKE_POSITIONS, {"rows": rows})
    return int(result.scalar_one())


async def write_organizations(
    conn: AsyncConnection,
    *,
    created: Sequence[Organization],
    updated: Sequence[Organization],
    names: bool,
    moment: datetime,
) -> None:
    """Insert and update organizations, one statement each.

    Args:
        created: With all their fields.
        updated: Locked before. Their `updated_at` is `moment`, or what it was where that is later.
        names: Some organization takes a name or gives one up. Then the unique names, otherwise checked at commit, are
            checked now.
        moment: When they are updated.

    Raises:
        IntegrityError: Another worker created the same id or took a name meanwhile; roll back and decide again.
    """
    if updated:
        arrays = _organization_arrays(updated, but=_SAME_OR_KEPT)
        await conn.execute(_UPDATE_ORGANIZATIONS, arrays | {"given_moment": moment})
    if created:
        await conn.execute(_INSERT_ORGANIZATIONS, _organization_arrays(created))
    if names:
        await conn.execute(_CHECK_NAMES)


async def append_journal(conn: AsyncConnection, start: int, rows: Sequence[NewOutcome]) -> None:
    """Append `rows` in order: row i (from 0) has position start + 1 + i, which were taken before.

    The rows go by COPY: half the processor time of an insert from arrays, here and in Postgres.

    Raises:
        asyncpg.UniqueViolationError: A command id is in the journal meanwhile; roll back and decide again.
    """
    session = cast_to("Session", (await conn.get_raw_connection()).driver_connection)
    await session.copy_records_to_table(
        Journal.__tablename__,
        records=[(position, *row) for position, row in enumerate(rows, start + 1)],
        columns=_JOURNAL_COLUMNS,
    )


async def park(conn: AsyncConnection, rows: Sequence[KeptRecord], recorded_at: datetime) -> None:
    """Set records aside; one that is there already (same coordinates and time) is left as it is."""
    await conn.execute(
        _PARK, [{**row._asdict(), "attempts": 1, "state": "open", "recorded_at": recorded_at} for row in rows]
    )


def _organization_arrays(organizations: Sequence[Organization], *, but: Collection[str] = ()) -> dict[str, list[Any]]:
    arrays = {
        f"given_{field}": list(values)
        for field, values in zip(Organization._fields, zip(*organizations, strict=True), strict=True)
        if field not in but
    }
    arrays["given_primary_address"] = [
        None if address is None else orjson.dumps(address).decode() for address in arrays["given_primary_address"]
    ]
    return arrays


async def count_defects(conn: AsyncConnection) -> int:
    """How many records wait because our own code raised on them, at most `DEFECTS_COUNTED_MAX`."""
    return int(await conn.scalar(_COUNT_DEFECTS) or 0)


async def ping(conn: AsyncConnection) -> None:
    """Ask for a sign of life."""
    await conn.execute(text("SELECT 1"))
