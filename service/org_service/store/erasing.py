"""Emptying the rows of organizations that were deleted, and seeing that they are empty (decision 0043).

The rows stay, so positions, versions and command ids stay as they are. Only `orgs_owner` may do this: for the service's
own roles the journal is insert-only. Everything is set-based, over some hundred organizations at a time, in the
transaction that locks them; whoever decides a command of one of them locks the same row first, so nothing is added
meanwhile.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    LargeBinary,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal_column,
    not_,
    null,
    or_,
    select,
    text,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain import details
from org_service.domain.reasons import ParkedState
from org_service.store.sql import columns, constant, unnest
from org_service.store.tables import AcceptedCommandRow, JournalRow, OrganizationRow, ParkedRow

VALUE_CHARS_MIN: Final = 4
"""A shorter name or line of an address is part of too many other texts to be looked for in them."""


class Deleted(NamedTuple):
    """An organization that is deleted, and not erased."""

    id: UUID
    version: int
    deleted_at: datetime
    updated_at: datetime


class Erased(NamedTuple):
    """An organization that was erased."""

    id: UUID
    deleted_at: datetime
    erased_at: datetime
    position: int
    """Of its `org.erased`."""


class Rows(NamedTuple):
    """How many rows say something of organizations."""

    journal: int
    parked: int
    accepted: int


_ids = bindparam("ids", type_=ARRAY(Uuid))
_keys = bindparam("keys", type_=ARRAY(LargeBinary))
_deleted_through = bindparam("deleted_through", type_=DateTime(timezone=True))
_erasable = select(*columns(OrganizationRow, Deleted._fields)).where(
    col(OrganizationRow.deleted_at) <= _deleted_through, col(OrganizationRow.name) != literal_column("''")
)
_LIST: Final = (
    _erasable.where(
        or_(_ids.is_(None), col(OrganizationRow.id) == func.any(_ids)),
        col(OrganizationRow.id) > bindparam("after_id", type_=Uuid),
    )
    .order_by(col(OrganizationRow.id))
    .limit(bindparam("limit", type_=Integer))
)
_LOCK: Final = (
    _erasable.where(col(OrganizationRow.id) == func.any(_ids)).order_by(col(OrganizationRow.id)).with_for_update()
)
_is_open = col(ParkedRow.state) == constant(ParkedState.OPEN)
_is_theirs = or_(col(ParkedRow.org_id) == func.any(_ids), col(ParkedRow.key) == func.any(_keys))
_FIND_HELD: Final = select(col(ParkedRow.org_id), col(ParkedRow.key)).where(_is_open, _is_theirs).distinct()
# Each has an index of its own.
_of_changes = and_(col(JournalRow.org_id) == func.any(_ids), col(JournalRow.event_type).is_not(None))
_of_others = and_(
    col(JournalRow.org_id) == func.any(_ids),
    col(JournalRow.event_type).is_(None),
    col(JournalRow.org_id).is_not(None),
)
_rows_of_each = union_all(
    select(col(JournalRow.org_id), col(JournalRow.position)).where(_of_changes),
    select(col(JournalRow.org_id), col(JournalRow.position)).where(_of_others),
).subquery("rows_of_each")
_FIND_LAST_POSITIONS: Final = select(_rows_of_each.c.org_id, func.max(_rows_of_each.c.position)).group_by(
    _rows_of_each.c.org_id
)


def _count(*conditions: ColumnElement[bool]) -> Any:
    return select(func.count()).where(*conditions).scalar_subquery()


_COUNT: Final = select(
    (_count(_of_changes) + _count(_of_others)).label("journal"),
    _count(_is_theirs).label("parked"),
    _count(col(AcceptedCommandRow.org_id) == func.any(_ids)).label("accepted"),
)
# Names, domains and lines of addresses, whenever they had them; what else an address has is in a thousand others, too.
_FIND_VALUES: Final = text("""
SELECT DISTINCT said.value FROM journal, LATERAL (
    SELECT unnest(ARRAY[
        state->>'name', state->>'domain', state->'primary_address'->>'line1', state->'primary_address'->>'line2'
    ]) AS value FROM (VALUES (journal.before::json), (journal.after::json)) AS states(state)
) AS said
WHERE journal.org_id = any(CAST(:ids AS uuid[])) AND journal.event_type IS NOT NULL
    AND length(said.value) >= :chars_min
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("chars_min", type_=Integer))
_given = unnest({"id": Uuid, "updated_at": DateTime(timezone=True)})
_EMPTY_ORGANIZATIONS: Final = (
    update(OrganizationRow)
    .where(col(OrganizationRow.id) == _given.c.id)
    .values(
        name="",
        domain=None,
        primary_address=null(),
        version=col(OrganizationRow.version) + literal_column("1"),
        updated_at=_given.c.updated_at,
    )
)
_problem: Any = cast(col(JournalRow.problem), JSON)
_emptied: dict[str, Any] = {"before": None, "after": None, "actor": None, "request_digest": b""}
_EMPTY_CHANGES: Final = update(JournalRow).where(_of_changes).values(_emptied)
_EMPTY_OTHERS: Final = (
    update(JournalRow)
    .where(_of_others)
    .values(
        _emptied
        | {
            "problem": case(
                (
                    col(JournalRow.problem).is_not(None),
                    cast(
                        func.json_build_object(
                            "type",
                            _problem["type"],
                            "title",
                            _problem["title"],
                            "status",
                            _problem["status"],
                            "detail",
                            details.FORGOTTEN,
                            "errors",
                            func.json_build_array(),
                        ),
                        Text,
                    ),
                )
            )
        }
    )
)
_parked_nothing: dict[str, Any] = dict.fromkeys(
    ("key", "value", "actor", "authenticated_by", "request_digest", "value_bytes", "value_sha256")
) | {"headers": "[]", "detail": ""}
_EMPTY_PARKED: Final = update(ParkedRow).where(_is_theirs).values(_parked_nothing)
_FORGET_ACCEPTED: Final = delete(AcceptedCommandRow).where(col(AcceptedCommandRow.org_id) == func.any(_ids))
_erased_before = unnest(
    {"id": Uuid, "position": BigInteger, "erased_at": DateTime(timezone=True)}, prefix="erased_before_"
)
_LIST_ERASED: Final = (
    select(
        *columns(OrganizationRow, ("id", "deleted_at")),
        *columns(JournalRow, ("recorded_at", "position")),
    )
    .join_from(
        OrganizationRow,
        JournalRow,
        and_(
            col(JournalRow.org_id) == col(OrganizationRow.id),
            col(JournalRow.version) == col(OrganizationRow.version),
            col(JournalRow.event_type).is_not(None),
        ),
    )
    .where(
        col(OrganizationRow.name) == literal_column("''"),
        or_(_ids.is_(None), col(OrganizationRow.id) == func.any(_ids)),
    )
    .order_by(col(OrganizationRow.id))
)
_says_something = (
    col(JournalRow.position) < _erased_before.c.position,
    or_(
        col(JournalRow.before).is_not(None),
        col(JournalRow.after).is_not(None),
        col(JournalRow.actor).is_not(None),
        func.length(col(JournalRow.request_digest)) > literal_column("0"),
        not_(col(JournalRow.problem).contains(bindparam("forgotten", type_=Text))),
    ),
)
_is_erased = col(JournalRow.org_id) == _erased_before.c.id
_left_of_changes = _count(_is_erased, col(JournalRow.event_type).is_not(None), *_says_something)
_left_of_others = _count(
    _is_erased, col(JournalRow.event_type).is_(None), col(JournalRow.org_id).is_not(None), *_says_something
)
_COUNT_LEFT: Final = select(
    (_left_of_changes + _left_of_others).label("journal"),
    _count(
        or_(
            col(ParkedRow.org_id) == _erased_before.c.id,
            col(ParkedRow.key) == func.convert_to(cast(_erased_before.c.id, Text), "UTF8"),
        ),
        col(ParkedRow.recorded_at) < _erased_before.c.erased_at,
        or_(
            col(ParkedRow.key).is_not(None),
            col(ParkedRow.value).is_not(None),
            col(ParkedRow.actor).is_not(None),
            col(ParkedRow.headers) != literal_column("'[]'"),
        ),
    ).label("parked"),
    _count(
        col(AcceptedCommandRow.org_id) == _erased_before.c.id,
        col(AcceptedCommandRow.accepted_at) < _erased_before.c.erased_at,
    ).label("accepted"),
)
NIL: Final = UUID(int=0)
"""Before every id."""


async def list_erasable(
    conn: AsyncConnection, deleted_through: datetime, org_ids: Sequence[UUID] | None, after_id: UUID, limit: int
) -> list[Deleted]:
    """The next organizations, in order of id, that were deleted by then and are not erased.

    Reads the whole table by its key, unless some are asked for.
    """
    wanted = {"deleted_through": deleted_through, "ids": org_ids, "after_id": after_id, "limit": limit}
    return [Deleted._make(row) for row in await conn.execute(_LIST, wanted)]


async def lock(conn: AsyncConnection, org_ids: Collection[UUID], deleted_through: datetime) -> list[Deleted]:
    """Lock those that still are deleted and not erased, in order of id, until the transaction ends."""
    rows = await conn.execute(_LOCK, {"ids": list(org_ids), "deleted_through": deleted_through})
    return [Deleted._make(row) for row in rows]


async def find_held(conn: AsyncConnection, org_ids: Collection[UUID]) -> set[UUID]:
    """Which of them have open parked records: these need an outcome, or somebody's word, before they are emptied."""
    found: set[UUID] = set()
    by_key = {key: org_id for org_id, key in zip(org_ids, _keys_of(org_ids), strict=True)}
    for org_id, key in await conn.execute(_FIND_HELD, _of(org_ids)):
        found.update(each for each in (org_id, by_key.get(key or b"")) if each is not None)
    return found


async def find_last_positions(conn: AsyncConnection, org_ids: Collection[UUID]) -> dict[UUID, int]:
    """The last row of each in the journal; nothing can follow while it is locked."""
    return {row[0]: row[1] for row in await conn.execute(_FIND_LAST_POSITIONS, {"ids": list(org_ids)})}


async def count(conn: AsyncConnection, org_ids: Collection[UUID]) -> Rows:
    """How many rows are about organizations."""
    return Rows._make((await conn.execute(_COUNT, _of(org_ids))).one())


async def find_values(conn: AsyncConnection, org_ids: Collection[UUID]) -> set[str]:
    """What they were called, their domains and the lines of their addresses, ever; as far as it can be looked for."""
    rows = await conn.execute(_FIND_VALUES, {"ids": list(org_ids), "chars_min": VALUE_CHARS_MIN})
    return {row[0] for row in rows}


async def empty(conn: AsyncConnection, moments: Mapping[UUID, datetime]) -> None:
    """Empty everything that says something of organizations, and make their versions one more.

    Args:
        conn: In the transaction that locked them.
        moments: When each is erased.
    """
    given = {"given_id": list(moments), "given_updated_at": list(moments.values())}
    await conn.execute(_EMPTY_ORGANIZATIONS, given)
    await empty_others(conn, moments)


async def empty_others(conn: AsyncConnection, org_ids: Collection[UUID]) -> None:
    """Empty all but the organizations themselves; may run again."""
    of = _of(org_ids)
    await conn.execute(_EMPTY_CHANGES, of)
    await conn.execute(_EMPTY_OTHERS, of)
    await conn.execute(_EMPTY_PARKED, of)
    await conn.execute(_FORGET_ACCEPTED, of)


async def list_erased(conn: AsyncConnection, org_ids: Sequence[UUID] | None) -> list[Erased]:
    """The organizations that were erased, in order of id; all of them, or those asked for. Reads the whole table."""
    return [Erased._make(row) for row in await conn.execute(_LIST_ERASED, {"ids": org_ids})]


async def count_left(conn: AsyncConnection, erased: Sequence[Erased]) -> Rows:
    """How many rows from before the erasure still say something; none where all is well."""
    given = {
        "erased_before_id": [each.id for each in erased],
        "erased_before_position": [each.position for each in erased],
        "erased_before_erased_at": [each.erased_at for each in erased],
        "forgotten": details.FORGOTTEN,
    }
    return Rows._make((await conn.execute(_COUNT_LEFT, given)).one())


def _of(org_ids: Collection[UUID]) -> dict[str, Any]:
    return {"ids": list(org_ids), "keys": _keys_of(org_ids)}


def _keys_of(org_ids: Collection[UUID]) -> list[bytes]:
    """As records have them."""
    return [str(org_id).encode() for org_id in org_ids]
