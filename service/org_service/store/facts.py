"""Reference data as tables: whole batches of facts written and taken back."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, cast

from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Table,
    Text,
    Uuid,
    and_,
    bindparam,
    delete,
    or_,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import Delete
from sqlmodel import SQLModel

from org_events import reference as contract
from org_service.store.sql import arrays, unnest
from org_service.store.tables import MembershipRow, PartnershipRow, StaffRow

PAGE_ROWS: Final = 10_000


class FactTable:
    """One table of facts: a row is what a record says, the first columns are what its key names."""

    def __init__(self, model: type[SQLModel], types: Mapping[str, Any], keys: int) -> None:
        self._table = cast("Table", model.__table__)  # pyright: ignore[reportAttributeAccessIssue] - SQLModel's metaclass
        self.fields: Final = tuple(types)
        """Of a row, in order."""
        self.key_fields: Final = self.fields[:keys]
        self._upsert = self._make_upsert(types)
        self._delete = self._make_delete({name: types[name] for name in self.key_fields})
        keys_of = [self._table.c[name] for name in self.key_fields]
        after = [bindparam(f"after_{name}", type_=types[name]) for name in self.key_fields]
        self._first_keys: Final = select(*keys_of).order_by(*keys_of).limit(bindparam("limit", type_=Integer))
        self._following_keys: Final = self._first_keys.where(tuple_(*keys_of) > tuple_(*after))

    async def upsert(self, conn: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write facts, new or changed ones; each key at most once. A row that is there as it is isn't touched.

        Raises:
            DBAPIError: Nothing of the transaction holds; `failures.classify` says what to do.
        """
        if rows:
            await conn.execute(self._upsert, arrays(self.fields, rows))

    async def delete(self, conn: AsyncConnection, keys: Sequence[tuple[Any, ...]]) -> None:
        """Take facts back; one that does not exist is taken back already. Raises as `upsert`."""
        if keys:
            await conn.execute(self._delete, arrays(self.key_fields, keys))

    async def read_keys(self, conn: AsyncConnection) -> AsyncIterator[Sequence[tuple[Any, ...]]]:
        """The key fields of every fact, in order, a page of some thousand after the other."""
        rows = await conn.execute(self._first_keys, {"limit": PAGE_ROWS})
        while True:
            found = [tuple(row) for row in rows]
            if found:
                yield found
            if len(found) < PAGE_ROWS:
                return
            after = {f"after_{name}": value for name, value in zip(self.key_fields, found[-1], strict=True)}
            rows = await conn.execute(self._following_keys, after | {"limit": PAGE_ROWS})

    def _make_upsert(self, types: Mapping[str, Any]) -> Insert:
        given = unnest(types)
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
        given = unnest(types)
        same: list[ColumnElement[bool]] = [self._table.c[name] == given.c[name] for name in types]
        return delete(self._table).where(and_(*same))


MEMBERSHIPS: Final = FactTable(
    MembershipRow,
    {"user_id": Text, "org_id": Uuid, "role": Text, "joined_at": DateTime(timezone=True), "active": Boolean},
    keys=2,
)
PARTNERSHIPS: Final = FactTable(PartnershipRow, {"partner_org_id": Uuid, "org_id": Uuid, "role": Text}, keys=2)
STAFF: Final = FactTable(StaffRow, {"user_id": Text}, keys=1)

FACT_TABLES: Final[Mapping[type[contract.Reference], FactTable]] = {
    contract.Membership: MEMBERSHIPS,
    contract.Partnership: PARTNERSHIPS,
    contract.Staff: STAFF,
}
"""Where the facts of each kind go; a table has the fields of the kind, in the same order."""
