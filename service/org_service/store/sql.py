"""Parts that several statements are made of."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ARRAY, JSON, Select, TextClause, bindparam, cast, column, func, text
from sqlalchemy.sql.selectable import TableValuedAlias

Rows = Select[*tuple[Any, ...]]
"""A statement that reads."""


def constant(value: StrEnum) -> TextClause:
    """A word as text rather than as a parameter, so that the predicate of a partial index matches."""
    return text(f"'{value}'")


def unnest(types: Mapping[str, Any], *, prefix: str = "given_") -> TableValuedAlias:
    """`unnest($1::uuid[], $2::text[], …) AS given(id, name, …)`: a table made of one array a column.

    One text and one plan for any number of rows; a list of VALUES has another for each.
    """
    parameters = [bindparam(f"{prefix}{name}", type_=ARRAY(of)) for name, of in types.items()]
    columns = [column(name, of) for name, of in types.items()]
    return func.unnest(*parameters).table_valued(*columns).render_derived(name=prefix.removesuffix("_"))


def arrays(fields: Collection[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, list[Any]]:
    """The parameters of an `unnest` whose columns are `fields`: one array a column. At least one row."""
    return {f"given_{name}": list(values) for name, values in zip(fields, zip(*rows, strict=True), strict=True)}


def columns(table: Any, fields: Collection[str], *, json: Collection[str] = ()) -> list[Any]:
    """The columns of a table, or of an alias of one, that are named by `fields`; the texts of `json` come parsed."""
    named = {field: getattr(table, field) for field in fields}
    return [cast(column, JSON).label(field) if field in json else column for field, column in named.items()]
