"""The outbox without a database: what it asks of a connection, and what it needs to be imported."""

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest

from org_events import UpdateOrganization
from org_events.publishing.outbox import Outbox

ORG = UUID("0192d3a0-0000-7000-8000-000000000001")
COMMAND = UpdateOrganization(org_id=ORG, name="Acme", domain=None)

_ALONE = """
import sys
for name in ("sqlalchemy", "asyncpg", "prometheus_client"):
    sys.modules[name] = None  # an import of it fails
import asyncio
from uuid import UUID
from org_events import UpdateOrganization
from org_events.publishing.outbox import Outbox
class Connection:
    def is_in_transaction(self): return True
    async def fetch(self, statement, *values): print(len(values))
asyncio.run(Outbox().enqueue(Connection(), UpdateOrganization(org_id=UUID(int=5, version=4), name="Acme")))
"""


class Connection:
    """As one of asyncpg."""

    def __init__(self, *, in_transaction: bool) -> None:
        self._in_transaction = in_transaction
        self.run: list[tuple[Any, ...]] = []

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        self.run.append((query, *args))
        return []

    def is_in_transaction(self) -> bool:
        return self._in_transaction


async def test_a_command_is_written_as_it_will_be_sent() -> None:
    connection = Connection(in_transaction=True)
    command_id = await Outbox("billing.commands").enqueue(connection, COMMAND, actor="ann")
    [(statement, *values)] = connection.run
    assert "INSERT INTO billing.commands (id, org_id, type, body, actor)" in statement
    assert "CAST($1 AS uuid), CAST($2 AS uuid), CAST($3 AS text), CAST(CAST($4 AS text) AS json)" in statement
    assert values == [command_id, ORG, "org.update", f'{{"org_id":"{ORG}","name":"Acme","domain":null}}', "ann"]


async def test_nothing_is_enqueued_outside_of_a_transaction() -> None:
    connection = Connection(in_transaction=False)
    with pytest.raises(ValueError, match="in a transaction"):
        await Outbox().enqueue(connection, COMMAND)
    assert connection.run == []


async def test_what_the_service_would_not_read_is_not_enqueued() -> None:
    connection = Connection(in_transaction=True)
    with pytest.raises(ValueError, match="nil or max UUID"):
        await Outbox().enqueue(connection, COMMAND, command_id=UUID(int=0))
    assert connection.run == []


def test_the_table_is_made_statement_by_statement_under_its_own_name() -> None:
    table, *indexes = Outbox("billing.commands").table_statements
    assert "CREATE TABLE billing.commands (" in table
    assert [each.split(" (")[0] for each in indexes] == ["CREATE INDEX ON billing.commands"] * 2
    printed = subprocess.run(
        [sys.executable, "-m", "org_events.publishing.outbox", "billing.commands"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout.count(";") == printed.stdout.count("CREATE ") == 3


def test_a_name_that_is_none_is_rejected() -> None:
    with pytest.raises(ValueError, match="plain name"):
        Outbox("commands; DROP TABLE customers")


def test_neither_database_library_is_needed_for_the_other() -> None:
    ended = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "5\n"), ended.stderr
