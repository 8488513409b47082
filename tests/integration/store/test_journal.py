import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.errors import StopError
from org_service.settings import DatabaseSettings
from org_service.store import journal
from org_service.store.engine import Session, connect, create_engine
from tests.integration.store.rows import ACME, AT, insert_journal
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
async def relay(database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(database, "relay").execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as conn:
        yield conn
    await engine.dispose()


async def test_a_row_is_read_with_all_that_is_published(admin: Session, relay: AsyncConnection) -> None:
    command_id = await insert_journal(admin, 1)
    assert await journal.read_after(relay, 0, 10) == [
        journal.JournaledOutcome(
            position=1,
            command_id=command_id,
            org_id=ACME,
            version=1,
            event_type="org.updated",
            outcome="applied",
            code=200,
            actor="user:7",
            changed='["domain"]',
            before='{"domain":null}',
            after='{"domain":"acme.com"}',
            problem=None,
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            recorded_at=AT,
        )
    ]


async def test_rows_are_read_in_order_from_the_position_to_the_limit(admin: Session, relay: AsyncConnection) -> None:
    for position in range(1, 8):
        await insert_journal(admin, position)
    assert [row.position for row in await journal.read_after(relay, 0, 3)] == [1, 2, 3]
    assert [row.position for row in await journal.read_after(relay, 3, 3)] == [4, 5, 6]
    assert [row.position for row in await journal.read_after(relay, 6, 3)] == [7]
    assert await journal.read_after(relay, 7, 3) == []


@pytest.mark.parametrize(
    ("deleted", "after", "missing"),
    [("3", 0, 3), ("3", 2, 3), ("1", 0, 1), ("2, 4", 1, 2), ("3, 4, 5", 1, 3)],
)
async def test_a_reader_never_passes_a_hole(
    admin: Session, relay: AsyncConnection, deleted: str, after: int, missing: int
) -> None:
    for position in range(1, 8):
        await insert_journal(admin, position)
    await admin.execute(f"DELETE FROM journal WHERE position IN ({deleted})")
    with pytest.raises(StopError, match=f"no row at position {missing},"):
        await journal.read_after(relay, after, 100)


async def give_up(admin: Session, first: int, last: int) -> None:
    """Delete the rows of these positions, as a recovery leaves it."""
    await admin.execute("DELETE FROM journal WHERE position BETWEEN $1 AND $2", first, last)
    await admin.execute("INSERT INTO journal_gap VALUES ($1, $2, now())", first, last)


@pytest.mark.parametrize(
    ("after", "limit", "read"),
    [
        (0, 100, [1, 2, 6, 7, 9]),
        (0, 3, [1, 2, 6]),
        (2, 100, [6, 7, 9]),
        (4, 1, [6]),  # a reader that stands within the gaps, as the relay may
        (7, 100, [9]),
        (9, 100, []),
    ],
)
async def test_a_reader_steps_over_known_gaps(
    admin: Session, relay: AsyncConnection, after: int, limit: int, read: list[int]
) -> None:
    for position in range(1, 10):
        await insert_journal(admin, position)
    for first, last in ((8, 8), (4, 5), (3, 3)):
        await give_up(admin, first, last)
    assert [row.position for row in await journal.read_after(relay, after, limit)] == read


@pytest.mark.parametrize(("deleted", "missing"), [(2, 2), (5, 5), (7, 7)])
async def test_a_known_gap_excuses_no_other_hole(
    admin: Session, relay: AsyncConnection, deleted: int, missing: int
) -> None:
    """Before the gap, right behind it, and later."""
    for position in range(1, 9):
        await insert_journal(admin, position)
    await give_up(admin, 3, 4)
    await admin.execute("DELETE FROM journal WHERE position = $1", deleted)
    with pytest.raises(StopError, match=f"no row at position {missing},"):
        await journal.read_after(relay, 0, 100)


async def test_a_gap_with_rows_in_it_excuses_nothing(admin: Session, relay: AsyncConnection) -> None:
    for position in range(1, 6):
        await insert_journal(admin, position)
    await give_up(admin, 2, 4)
    await insert_journal(admin, 3)
    with pytest.raises(StopError, match="no row at position 2,"):
        await journal.read_after(relay, 0, 100)


async def test_nobody_asks_for_gaps_where_no_row_is_missing(admin: Session, relay: AsyncConnection) -> None:
    for position in range(1, 6):
        await insert_journal(admin, position)
    await give_up(admin, 2, 3)
    await admin.execute("DROP TABLE journal_gap")
    assert [row.position for row in await journal.read_after(relay, 3, 100)] == [4, 5]


async def test_rows_before_a_hole_are_still_read(admin: Session, relay: AsyncConnection) -> None:
    for position in range(1, 6):
        await insert_journal(admin, position)
    await admin.execute("DELETE FROM journal WHERE position = 4")
    assert [row.position for row in await journal.read_after(relay, 0, 3)] == [1, 2, 3]


async def test_a_transaction_that_took_its_positions_first_is_seen_first(
    database: DatabaseSettings, admin: Session, relay: AsyncConnection
) -> None:
    """The head's row lock: whoever comes second can't commit, nor be read, before the first has."""
    slow, quick = await connect(database, "worker"), await connect(database, "worker")
    transaction = slow.transaction()
    await transaction.start()
    await insert_journal(slow, 1)

    async def write_second() -> None:
        async with quick.transaction():
            await quick.execute("UPDATE journal_head SET position = position + 1")
            await insert_journal(quick, 2)

    second = asyncio.create_task(write_second())

    async def waits() -> bool:
        return True is await admin.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", quick.get_server_pid())

    await until(waits)
    assert await journal.read_after(relay, 0, 10) == []
    assert not second.done()
    await transaction.commit()
    await second
    assert [row.position for row in await journal.read_after(relay, 0, 10)] == [1, 2]
    await slow.close()
    await quick.close()


async def test_the_head_is_the_last_position_given_out(admin: Session, relay: AsyncConnection) -> None:
    assert await journal.read_head(relay) == 0
    await insert_journal(admin, 1)
    assert await journal.read_head(relay) == 1


async def test_a_head_without_a_row_stops_its_reader(admin: Session, relay: AsyncConnection) -> None:
    await admin.execute("DELETE FROM journal_head")
    with pytest.raises(StopError, match="journal_head has no row"):
        await journal.read_head(relay)


async def test_a_position_has_the_command_id_of_its_outcome(admin: Session, relay: AsyncConnection) -> None:
    command_id = await insert_journal(admin, 1)
    assert await journal.find_command_id(relay, 1) == command_id
    assert await journal.find_command_id(relay, 2) is None
