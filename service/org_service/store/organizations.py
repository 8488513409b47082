"""Organizations: locked, looked up and written by the worker, read by operators.

The worker's are set-based: a batch of any size is a handful of statements, each with one plan. Their order matters,
and `apply.applier` keeps it: lock, then look for duplicates, then write, then take positions; where a name changes
hands take positions, then write.
"""

import unicodedata
from collections.abc import Collection, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    DateTime,
    Integer,
    Text,
    Uuid,
    bindparam,
    cast,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as insert_or_update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_service.domain.organization import StoredOrganization, name_key
from org_service.store.sql import arrays, columns, unnest
from org_service.store.tables import NAME_KEY_CONSTRAINT, OrganizationRow

NAMESAKES_MAX: Final = 20
"""Deleted organizations of one name that are shown; more tell an operator nothing."""


_ids = bindparam("ids", type_=ARRAY(Uuid))
_keys = bindparam("keys", type_=ARRAY(Text))
_organizations = select(*columns(OrganizationRow, StoredOrganization._fields))

_FIND_NAMES: Final = select(col(OrganizationRow.id), col(OrganizationRow.name)).where(
    col(OrganizationRow.id) == func.any(_ids)
)
_LOCK: Final = (
    _organizations.where(col(OrganizationRow.id) == func.any(_ids)).order_by(col(OrganizationRow.id)).with_for_update()
)
_LOCK_WITH_HOLDERS: Final = (
    _organizations.where(
        or_(col(OrganizationRow.id) == func.any(_ids), col(OrganizationRow.name_key) == func.any(_keys))
    )
    .order_by(col(OrganizationRow.id))
    .with_for_update()
)
_FIND_HOLDERS: Final = select(col(OrganizationRow.name_key), col(OrganizationRow.id)).where(
    col(OrganizationRow.name_key) == func.any(_keys)
)

_TYPES: Final[dict[str, Any]] = {
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


def _as_stored(given: ColumnElement[Any]) -> ColumnElement[Any]:
    """An address is sent as text."""
    return cast(given, JSONB) if given.key == "primary_address" else given


_given = unnest(_TYPES)
_INSERT: Final = insert(OrganizationRow).from_select(
    list(StoredOrganization._fields),
    select(*map(_as_stored, _given.c)),
)
_put = insert_or_update(OrganizationRow).from_select(
    list(StoredOrganization._fields),
    select(*map(_as_stored, _given.c)),
)
_PUT_BACK: Final = _put.on_conflict_do_update(
    index_elements=["id"], set_={name: _put.excluded[name] for name in StoredOrganization._fields if name != "id"}
)
_SAME_OR_KEPT: Final = ("updated_at", "created_at")
"""Of the organizations of one update: no arrays are sent for these."""
_moment = bindparam("given_moment", type_=DateTime(timezone=True))
_changed = unnest({field: of for field, of in _TYPES.items() if field not in _SAME_OR_KEPT})
_UPDATE: Final = (
    update(OrganizationRow)
    .where(col(OrganizationRow.id) == _changed.c.id)
    .values(
        {column.name: _as_stored(column) for column in _changed.c if column.name != "id"}
        | {"updated_at": func.greatest(col(OrganizationRow.updated_at), _moment)}
    )
)
_CHECK_NAMES: Final = text(f"SET CONSTRAINTS {NAME_KEY_CONSTRAINT} IMMEDIATE")

_FIND_VERSIONS: Final = select(col(OrganizationRow.id), col(OrganizationRow.version)).where(
    col(OrganizationRow.id) == func.any(_ids)
)
_latest_first = col(OrganizationRow.updated_at).desc()
_lower_name = func.lower(col(OrganizationRow.name))
_FIND_BY_IDS: Final = _organizations.where(col(OrganizationRow.id) == func.any(_ids))
_FIND_BY_ID: Final = _organizations.where(col(OrganizationRow.id) == bindparam("id", type_=Uuid))
_FIND_BY_NAME: Final = _organizations.where(col(OrganizationRow.name_key) == bindparam("name_key", type_=Text))
_FIND_DELETED_BY_NAME: Final = (
    _organizations.where(
        col(OrganizationRow.deleted_at).is_not(None), _lower_name == func.lower(bindparam("name", type_=Text))
    )
    .order_by(_latest_first)
    .limit(NAMESAKES_MAX)
)
_page = _organizations.order_by(col(OrganizationRow.id)).limit(bindparam("limit", type_=Integer))
_LIST_FIRST: Final = _page
_LIST_FOLLOWING: Final = _page.where(col(OrganizationRow.id) > bindparam("after_id", type_=Uuid))

_number = attrgetter("int")
"""Sorts UUIDs as Postgres does, five times as fast as comparing them."""


async def find_names(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, str]:
    """The names of organizations, deleted ones included; not locked, so they may change at once."""
    if not ids:
        return {}
    rows = await conn.execute(_FIND_NAMES, {"ids": list(ids)})
    return {row[0]: row[1] for row in rows}


async def lock(
    conn: AsyncConnection, ids: Collection[UUID], name_keys: Collection[str]
) -> dict[UUID, StoredOrganization]:
    """Lock organizations until the transaction ends, and read them: those of `ids`, and whoever holds a name.

    The holders are locked because a name that is rejected as taken must still be taken at the rejection's position in
    the journal. Rows are locked in order of id, so that two workers can't wait for each other; ids and names without a
    row are left out.
    """
    ordered = sorted(ids, key=_number)
    if name_keys:
        rows = await conn.execute(_LOCK_WITH_HOLDERS, {"ids": ordered, "keys": list(name_keys)})
    else:
        rows = await conn.execute(_LOCK, {"ids": ordered})
    return {row[0]: StoredOrganization._make(row) for row in rows}


async def find_holders(conn: AsyncConnection, name_keys: Collection[str]) -> dict[str, UUID]:
    """Who holds these names now."""
    if not name_keys:
        return {}
    rows = await conn.execute(_FIND_HOLDERS, {"keys": list(name_keys)})
    return {key: org_id for key, org_id in rows if key is not None}


async def find_versions(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, int]:
    """At which version organizations are now, deleted ones included; not locked, so they may change at once."""
    if not ids:
        return {}
    return {row[0]: row[1] for row in await conn.execute(_FIND_VERSIONS, {"ids": list(ids)})}


async def write(
    conn: AsyncConnection,
    *,
    created: Sequence[StoredOrganization],
    updated: Sequence[StoredOrganization],
    names: bool,
    moment: datetime,
) -> None:
    """Insert and update organizations, one statement each.

    Args:
        conn: In the transaction that locked them.
        created: With all their fields.
        updated: Locked before. Their `updated_at` is `moment`, or what it was where that is later.
        names: Some organization takes a name or gives one up. Then the unique names, otherwise checked at commit, are
            checked now.
        moment: When they are updated.

    Raises:
        IntegrityError: Another worker created the same id or took a name meanwhile; roll back and decide again.
    """
    if updated:
        given = _arrays(updated, but=_SAME_OR_KEPT)
        await conn.execute(_UPDATE, given | {"given_moment": moment})
    if created:
        await conn.execute(_INSERT, _arrays(created))
    if names:
        await conn.execute(_CHECK_NAMES)


async def put_back(conn: AsyncConnection, organization: StoredOrganization) -> bool:
    """Write one organization with all its fields, whatever is there. False where another one has its name."""
    if organization.name_key is not None:
        holder = (await find_holders(conn, [organization.name_key])).get(organization.name_key, organization.id)
        if holder != organization.id:
            return False
    await conn.execute(_PUT_BACK, _arrays([organization]))
    return True


def _arrays(organizations: Sequence[StoredOrganization], *, but: Collection[str] = ()) -> dict[str, list[Any]]:
    given = arrays(StoredOrganization._fields, organizations)
    for field in but:
        del given[f"given_{field}"]
    given["given_primary_address"] = [
        None if address is None else orjson.dumps(address).decode() for address in given["given_primary_address"]
    ]
    return given


async def find_by_id_or_name(conn: AsyncConnection, id_or_name: str) -> list[StoredOrganization]:
    """Find an organization by its id or its exact name, upper and lower case alike; deleted ones too.

    Returns:
        None, or one; of a name the one that has it now, then those deleted under it, the latest first, at most
        `NAMESAKES_MAX`. Finding deleted ones by name reads the whole table.
    """
    try:
        found = await conn.execute(_FIND_BY_ID, {"id": UUID(id_or_name)})
    except ValueError:
        name = unicodedata.normalize("NFKC", id_or_name).strip()
        living = await conn.execute(_FIND_BY_NAME, {"name_key": name_key(name)})
        deleted = await conn.execute(_FIND_DELETED_BY_NAME, {"name": name})
        return [StoredOrganization._make(row) for row in (*living, *deleted)]
    return [StoredOrganization._make(row) for row in found]


async def find_by_ids(conn: AsyncConnection, ids: Collection[UUID]) -> list[StoredOrganization]:
    """Read organizations, deleted ones included; not locked, so they may change at once."""
    return [StoredOrganization._make(row) for row in await conn.execute(_FIND_BY_IDS, {"ids": list(ids)})]


async def list_by_id(conn: AsyncConnection, limit: int, after_id: UUID | None = None) -> list[StoredOrganization]:
    """Read organizations in order of id, deleted ones included: the next `limit` after `after_id`."""
    if after_id is None:
        rows = await conn.execute(_LIST_FIRST, {"limit": limit})
    else:
        rows = await conn.execute(_LIST_FOLLOWING, {"limit": limit, "after_id": after_id})
    return [StoredOrganization._make(row) for row in rows]
