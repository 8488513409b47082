"""The plans of `docs/sql`: `nice python -m tests.bench.plans [organizations]`.

Starts Kafka and Postgres (or uses those of the environment), fills a database, explains each hot statement as the
session of its process runs it, and writes `NAME.plan.txt` beside each `NAME.sql`. Takes four minutes and 4 GB of disk.
A test reads which indexes they use, and whether the statement is still the one that was explained; nothing else of
them is compared, because plans are Postgres' choice.
"""

import asyncio
import re
import secrets
import sys
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import asyncpg
from pydantic import SecretStr

import org_local
from org_service.documentation.files import ROOT
from org_service.documentation.sql_pages import FOLDER, PLAN_SUFFIX
from org_service.settings import DatabaseSettings, LogSettings
from org_service.store import migrate
from org_service.store.compiled import Compiled, list_statements
from org_service.store.engine import Session, connect
from org_service.telemetry.logs import set_up_logging
from tests.bench.hot_statements import Hot, hot_statements
from tests.bench.plan_data import PlanData

BATCH: Final = 500
COMMAND: Final = "python -m tests.bench.plans"
_EXPLAIN: Final = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF)"
_USED: Final = re.compile(r"(?:Index (?:Only )?Scan (?:Backward )?using|Bitmap Index Scan on|Arbiter Indexes:) (\w+)")
_WALKED: Final = re.compile(r"Index (?:Only )?Scan (?:Backward )?using (\w+)[^\n]*\n(?! *Index Cond)")
_NAMED: Final = re.compile(r"\b\w+_(?:pkey|key|idx)\b")
_ARRAY: Final = re.compile(r"'\{([^']*)\}'")
_SHOWN_MAX: Final = 60
"""Characters of an array that are shown in a plan."""


async def explain(session: Session, hot: Hot) -> str:
    """Run a statement, take back what it wrote, and return its plan; long arrays are shortened."""
    statement = list_statements()[hot.statement]
    # Explained by itself, a statement would be planned for its parameters whatever the session's plan_cache_mode.
    await session.execute(f"PREPARE hot AS {statement.text}")
    arguments = ", ".join(_argument(parameter, hot.parameters) for parameter in statement.parameters)
    call = f"hot({arguments})" if arguments else "hot"
    transaction = session.transaction()
    await transaction.start()
    try:
        rows = await session.fetch(f"{_EXPLAIN} EXECUTE {call}")
    finally:
        await transaction.rollback()
    await session.execute("DEALLOCATE hot")
    return "\n".join(_ARRAY.sub(_shortened, row[0]) for row in rows)


def digest_of(statement: Compiled) -> str:
    """What a plan file says of its statement, so that a plan of another one is noticed; the names of parameters don't
    count.
    """
    return sha256(statement.text.encode()).hexdigest()[:16]


def indexes_in(plan: str) -> set[str]:
    """Which indexes a plan uses."""
    return set(_USED.findall(plan))


def indexes_walked(plan: str) -> set[str]:
    """Which of these it reads from an end rather than at what is asked for."""
    return set(_WALKED.findall(plan))


def indexes_named(text: str) -> set[str]:
    """Which indexes a description names."""
    return set(_NAMED.findall(text))


def _argument(parameter: str, given: Mapping[str, Any]) -> str:
    """As a literal. A parameter with a value of its own is written `name = value`."""
    name, fixed, value = parameter.partition(" = ")
    return _literal(given[name] if name in given or not fixed else value)


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return _literal("{" + ",".join(_element(each) for each in value) + "}")
    return "'" + str(value).replace("'", "''") + "'"


def _element(value: object) -> str:
    return "NULL" if value is None else '"' + str(value).replace("\\", r"\\").replace('"', r"\"") + '"'


def _shortened(array: re.Match[str]) -> str:
    if len(array[0]) <= _SHOWN_MAX:
        return array[0]
    elements = array[1].split(",")
    return f"'{{{elements[0]}, … {len(elements)} in all}}'"


async def write_plans(database: DatabaseSettings, data: PlanData) -> None:
    """Explain each hot statement and write its file."""
    version = await _version(database)
    counts = await data.count(database.url.get_secret_value())
    rows = ", ".join(f"{table} {count:,}" for table, count in counts.items())
    for hot in hot_statements(data, BATCH):
        session = await connect(database, hot.role)
        plan = await explain(session, hot)
        await session.close()
        how = f"{hot.statement} for {hot.about}, in a session of orgs_{hot.role}, PostgreSQL {version}."
        made = f"By `{COMMAND}`, with rows in the tables: {rows}."
        of = f"Of the statement whose SHA-256 begins with {digest_of(list_statements()[hot.statement])}."
        (ROOT / FOLDER / f"{hot.statement}{PLAN_SUFFIX}").write_text(f"{how}\n{made}\n{of}\n\n{plan}\n")


async def _version(database: DatabaseSettings) -> str:
    session = await connect(database, None)
    version = await session.fetchval("SHOW server_version")
    await session.close()
    return str(version)


async def run(server_url: str, organizations: int) -> None:
    """Make a database, fill it, write the plans, drop it."""
    name = f"plans{secrets.token_hex(4)}"
    database = DatabaseSettings(url=SecretStr(f"{server_url}/{name}"))
    server = await asyncpg.connect(f"{server_url}/postgres")
    await server.execute(f"CREATE DATABASE {name}")
    try:
        await migrate.upgrade(database)
        data = PlanData(organizations, memberships=2 * organizations)
        await data.load(database.url.get_secret_value())
        await write_plans(database, data)
    finally:
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await server.close()


def main() -> None:
    """Do so with a million organizations, or as many as asked for."""
    organizations = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    set_up_logging(LogSettings(level="warning"))
    with org_local.start() as stack:
        asyncio.run(run(stack.database_url.rpartition("/")[0], organizations))


if __name__ == "__main__":
    main()
