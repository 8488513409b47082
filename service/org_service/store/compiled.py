"""Every statement of this package as Postgres gets it, for `docs/sql`. Found rather than listed, so none is left out.

A statement is a constant of a module (a test holds to that), and is named after it: `organizations/lock` is `_LOCK` of
`organizations`. Nothing in production imports this.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Executable, Insert
from sqlalchemy.dialects.postgresql.asyncpg import dialect
from sqlalchemy.sql import ClauseElement

from org_service.store import (
    accepted,
    console,
    database,
    directory,
    erasing,
    facts,
    journal,
    leader,
    lists,
    losses,
    marks,
    migrate,
    notes,
    operations,
    organizations,
    outcomes,
    parked,
    parked_queues,
    past,
    recorded,
    recovery,
    reference_progress,
    relations,
    restoring,
    roles,
    scratch,
    server,
    staged,
    verification,
)
from org_service.store.facts import FactTable
from org_service.store.prepared import Prepared
from org_service.store.tables import JOURNAL_CHANNEL, JournalRow

MODULES: Final[tuple[ModuleType, ...]] = (
    organizations,
    outcomes,
    parked,
    parked_queues,
    journal,
    relations,
    facts,
    reference_progress,
    directory,
    lists,
    accepted,
    losses,
    operations,
    console,
    recorded,
    past,
    scratch,
    marks,
    verification,
    erasing,
    notes,
    recovery,
    restoring,
    staged,
    leader,
    server,
    database,
    migrate,
    roles,
)
"""Those with statements, in the order of the index page."""
_RAW: Final = re.compile(r"\s*(SELECT|DO) ")


class Compiled(NamedTuple):
    """A statement as text."""

    text: str
    parameters: tuple[str, ...]
    """The name of $1, $2 …; with its value where the statement has it fixed."""


def list_statements() -> Mapping[str, Compiled]:
    """Every statement, by subject and name."""
    found: dict[str, Compiled] = {}
    for module in MODULES:
        subject = module.__name__.rpartition(".")[2]
        for name, statement in _statements_in(module):
            found[f"{subject}/{name.strip('_').lower()}"] = compile_statement(statement)
    copied = ", ".join(f'"{column}"' for column in journal.COLUMNS)
    found["journal/append"] = Compiled(f'COPY "{JournalRow.__tablename__}" ({copied}) FROM STDIN (FORMAT binary)', ())
    found["leader/listen"] = Compiled(f"LISTEN {JOURNAL_CHANNEL}", ())
    return found


def _statements_in(module: ModuleType) -> Iterator[tuple[str, object]]:
    for name, value in vars(module).items():
        if isinstance(value, FactTable):
            for attribute, statement in vars(value).items():
                if isinstance(statement, Executable):
                    yield f"{name}{attribute}", statement
        elif name.isupper() and (isinstance(value, Executable | Prepared) or _is_raw(value)):
            yield name, value
    if module is lists:
        for name, statement in lists.examples():
            yield name, statement


def _is_raw(value: object) -> bool:
    return isinstance(value, str) and _RAW.match(value) is not None


def compile_statement(statement: object) -> Compiled:
    """The text that the driver is given."""
    if isinstance(statement, str):
        return Compiled(statement.strip(), ())
    if isinstance(statement, Prepared):
        return Compiled(statement.text, _parameters(statement.names, statement.constants))
    compiled: Any = cast("ClauseElement", statement).compile(
        dialect=dialect(),
        for_executemany=isinstance(statement, Insert),
        # What is asked for with IN is a parameter each, as the driver is given it.
        compile_kwargs={"render_postcompile": True},
    )
    return Compiled(str(compiled), _parameters(compiled.positiontup or (), compiled.params))


def _parameters(names: Sequence[str], constants: Mapping[str, Any]) -> tuple[str, ...]:
    fixed = {name: value for name, value in constants.items() if value is not None}
    return tuple(f"{name} = {fixed[name]!s}" if name in fixed else name for name in names)
