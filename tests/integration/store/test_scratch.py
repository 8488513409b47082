"""Tables that one session alone sees: nothing else can be written there, whoever logs in."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from org_service.domain.organization import StoredOrganization
from org_service.domain.outcomes import NewOutcome
from org_service.errors import UnreachableError
from org_service.settings import Settings
from org_service.store import organizations, outcomes, scratch
from org_service.store.scratch import Given, Scratch, Waiting
from tests.support.database import execute
from tests.support.rehearsing import checksums, temporary_tables

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def organization(name: str) -> StoredOrganization:
    return StoredOrganization(uuid4(), name, name.lower(), None, {"city": "Oslo"}, NOW, NOW, None, None, 3)


@pytest.fixture
async def tables(settings: Settings) -> AsyncIterator[Scratch]:
    made = Scratch(settings.database)
    await made.open()
    yield made
    await made.close()


async def count(tables: Scratch, table: str) -> int:
    async with tables.note() as conn:
        return int(await conn.scalar(text(f"SELECT count(*) FROM {table}")))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO staff VALUES ('mallory')",
        "DELETE FROM membership",
        "UPDATE public.journal_head SET position = 9",
        "INSERT INTO public.organization SELECT * FROM public.organization",
        "TRUNCATE public.journal",
        "DROP TABLE public.parked",
    ],
)
async def test_not_even_a_superuser_writes_anything_else_there(settings: Settings, statement: str) -> None:
    powerful = settings.database.model_copy(update={"assume_role": False})
    before = await checksums(settings)
    tables = Scratch(powerful)
    await tables.open()
    with pytest.raises(DBAPIError, match="read-only transaction"):
        async with tables.note() as conn:
            await conn.execute(text(statement))
    await tables.close()
    assert await checksums(settings) == before


async def test_each_transaction_begins_with_what_it_is_given_and_nothing_else(tables: Scratch) -> None:
    acme = organization("Acme")
    tables.given = Given({acme.id: acme}, waiting=[Waiting(uuid4(), acme.id, b"\1", 2, 7)])
    async with tables.begin() as conn:
        assert await organizations.lock(conn, [acme.id], []) == {acme.id: acme}
        await organizations.write(conn, created=[organization("Other")], updated=[], names=True, moment=NOW)
        assert await conn.scalar(text("SELECT count(*) FROM parked")) == 1
    assert await count(tables, "organization") == 0
    async with tables.begin() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM organization")) == 1


async def test_outcomes_are_there_also_where_nothing_else_is(tables: Scratch) -> None:
    known = NewOutcome(
        uuid4(), uuid4(), None, "org.update", None, "rejected", 404, None, b"\1", 0, 7, None, None, None, None, None,
        NOW, 0,
    )  # fmt: skip
    tables.given = Given(journaled=[known])
    async with tables.begin() as conn:
        assert list(await outcomes.find_journaled(conn, [known.command_id])) == [known.command_id]
    assert await count(tables, "journal") == 0


async def test_what_went_another_way_is_kept(tables: Scratch) -> None:
    acme, gone = organization("Acme"), UUID(int=9)
    async with tables.note() as conn:
        await scratch.note_diverged(conn, [(acme.id, organization("Old")), (gone, None)])
        await scratch.note_diverged(conn, [(acme.id, acme)])
        await scratch.note_given_up(conn, [("acme", 5, gone), ("acme", 9, acme.id)])
    async with tables.note() as conn:
        assert await scratch.find_diverged(conn, [gone], ["acme"]) == {acme.id: acme, gone: None}
        assert await scratch.find_given_up(conn, [("acme", 5), ("acme", 6), ("acme", 10)]) == {
            ("acme", 5): gone,
            ("acme", 6): acme.id,
        }


async def test_sessions_see_their_own_tables_alone_and_take_them_along(settings: Settings, tables: Scratch) -> None:
    other = Scratch(settings.database)
    await other.open()
    async with tables.note() as conn:
        await scratch.note_diverged(conn, [(UUID(int=1), None)])
    assert await count(other, "diverged") == 0
    both = await temporary_tables(settings)
    await other.close()
    await tables.close()
    while await temporary_tables(settings):
        pass
    assert both == 14


async def test_a_session_that_is_gone_is_never_replaced_by_one_with_the_real_tables(
    settings: Settings, tables: Scratch
) -> None:
    await execute(
        settings, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orgs-operate'"
    )
    with pytest.raises((DBAPIError, UnreachableError)):
        await count(tables, "organization")
    for _ in range(2):
        with pytest.raises(UnreachableError, match="is gone"):
            await count(tables, "organization")
