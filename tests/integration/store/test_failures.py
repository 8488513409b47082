"""Every error is provoked on a real server: what matters is what the driver and SQLAlchemy make of it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import ARRAY, SmallInteger, Text, Uuid, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from org_service.errors import DataRefusedError, RefoldError, RetryError, StopError, TooSlowError
from org_service.settings import DatabaseSettings
from org_service.store.engine import Session, connect, create_engine
from org_service.store.failures import classify, classify_errors
from tests.integration.store.conftest import CreateDatabase, CreateLogin
from tests.integration.store.proxy import network_to
from tests.integration.store.rows import ACME, insert_journal, insert_organization, insert_parked
from tests.support.waiting import until

pytestmark = pytest.mark.integration

SECRET = "a customer's name"
OTHER = UUID("0195a000-0000-7000-8000-000000000002")


@pytest.fixture
async def worker(database: DatabaseSettings) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(database, "worker")
    yield engine
    await engine.dispose()


async def _error(engine: AsyncEngine, statement: Any, **parameters: Any) -> Exception:
    with pytest.raises(Exception) as caught:
        async with engine.begin() as conn:
            await conn.execute(text(statement) if isinstance(statement, str) else statement, parameters)
    return caught.value


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Text, f"{SECRET}\0"),
        (Text, f"{SECRET}\ud800"),
        (ARRAY(Text), [f"{SECRET}\0"]),
        (ARRAY(Text), [f"{SECRET}\ud800"]),
        (JSONB, {"name": f"{SECRET}\0"}),
        (JSONB, {"name": f"{SECRET}\ud800"}),
        (JSONB, {"name": object()}),
        (Uuid, SECRET),
        (SmallInteger, 70_000),
        (ARRAY(SmallInteger), [70_000]),
    ],
)
async def test_a_value_that_no_column_accepts_is_refused_data(worker: AsyncEngine, type_: Any, value: Any) -> None:
    verdict = classify(await _error(worker, select(bindparam("value", type_=type_)), value=value))
    assert isinstance(verdict, DataRefusedError)
    assert SECRET not in str(verdict)
    assert "70000" not in str(verdict)


async def test_a_row_that_breaks_a_rule_of_its_own_is_refused_data(worker: AsyncEngine, admin: Session) -> None:
    await insert_organization(admin, ACME, "Acme")
    for statement in (
        "UPDATE organization SET version = 0",
        "UPDATE organization SET name = NULL",
        "UPDATE organization SET version = version + 9223372036854775807",
        # Longer than an index takes, and not to be compressed.
        "UPDATE organization SET name_key = "
        "(SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 999))",
    ):
        assert isinstance(classify(await _error(worker, statement)), DataRefusedError), statement


async def test_a_name_that_is_taken_at_commit_is_folded_again(worker: AsyncEngine, admin: Session) -> None:
    await insert_organization(admin, ACME, SECRET)
    await insert_organization(admin, OTHER, "other")
    verdict = classify(
        await _error(worker, f"UPDATE organization SET name_key = '{SECRET.replace(chr(39), 2 * chr(39))}'")
    )
    assert isinstance(verdict, RefoldError)
    assert "organization_name_key_key" in str(verdict)
    assert SECRET not in str(verdict)


async def test_a_command_id_that_is_journaled_meanwhile_is_folded_again(
    database: DatabaseSettings, admin: Session
) -> None:
    command_id = await insert_journal(admin, 1)
    session = await connect(database, "worker")
    with pytest.raises(RefoldError, match="journal_command_id_key"), classify_errors():
        await insert_journal(session, 2, command_id=command_id)
    await session.close()


async def test_a_record_parked_meanwhile_is_folded_again(database: DatabaseSettings, admin: Session) -> None:
    await insert_parked(admin, 1)
    with pytest.raises(RefoldError, match="parked_coordinates_key"), classify_errors():
        await insert_parked(admin, 1)


async def test_a_duplicate_position_is_not_folded_again(admin: Session) -> None:
    await insert_journal(admin, 1)
    with pytest.raises(asyncpg.UniqueViolationError) as caught:
        await insert_journal(admin, 1, version=2)
    assert classify(caught.value) is None


async def test_a_deadlock_is_folded_again(database: DatabaseSettings, admin: Session) -> None:
    await insert_organization(admin, ACME, "Acme")
    await insert_organization(admin, OTHER, "Other")
    lock = "SELECT id FROM organization WHERE id = $1 FOR UPDATE"
    one, two = await connect(database, "worker"), await connect(database, "worker")
    await one.execute("BEGIN")
    await two.execute("BEGIN")
    await one.execute(lock, ACME)
    await two.execute(lock, OTHER)
    outcomes = await asyncio.gather(one.execute(lock, OTHER), two.execute(lock, ACME), return_exceptions=True)
    errors = [each for each in outcomes if isinstance(each, BaseException)]
    assert [type(classify(each)) for each in errors] == [RefoldError]
    one.terminate()
    two.terminate()


async def test_a_serialization_failure_is_folded_again(worker: AsyncEngine, admin: Session) -> None:
    engine = worker.execution_options(isolation_level="REPEATABLE READ")
    async with engine.connect() as conn:
        await conn.execute(text("SELECT position FROM journal_head"))
        await admin.execute("UPDATE journal_head SET position = 1")
        with pytest.raises(RefoldError, match="40001"), classify_errors():
            await conn.execute(text("UPDATE journal_head SET position = 2"))


async def test_a_statement_or_transaction_that_takes_too_long_is_too_slow(
    create_database: CreateDatabase, template_database: str
) -> None:
    database = await create_database(template_database, statement_timeout_s=0.1)
    engine = create_engine(database, "worker", direct=True)
    assert isinstance(classify(await _error(engine, "SELECT pg_sleep(10)")), TooSlowError)
    patient = create_engine(database.model_copy(update={"statement_timeout_s": 10}), "worker", direct=True)
    async with patient.connect() as conn:
        await conn.execute(text("SET transaction_timeout = '100ms'"))
        await conn.commit()
        with pytest.raises(TooSlowError, match="25P04"), classify_errors():
            await conn.execute(text("SELECT pg_sleep(5)"))


async def test_a_lock_that_takes_too_long_is_retried(worker: AsyncEngine, admin: Session) -> None:
    async with admin.transaction():
        await admin.execute("LOCK TABLE journal")
        async with worker.connect() as conn:
            await conn.execute(text("SET LOCAL lock_timeout = '50ms'"))
            with pytest.raises(RetryError, match="55P03"), classify_errors():
                await conn.execute(text("SELECT count(*) FROM journal"))


async def test_a_session_ended_by_the_server_is_retried(worker: AsyncEngine, admin: Session) -> None:
    """In the middle of a transaction, of a statement, and of the COMMIT that finds it gone."""
    for last in ("SELECT 1", "COMMIT"):
        async with worker.connect() as conn:
            pid = await conn.scalar(text("SELECT pg_backend_pid()"))
            await admin.execute("SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(RetryError), classify_errors():
                await (conn.commit() if last == "COMMIT" else conn.execute(text(last)))

    sleeping = asyncio.create_task(_error(worker, "SELECT pg_sleep(30)"))
    find = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query = 'SELECT pg_sleep(30)'"

    async def sleeps() -> bool:
        return await admin.fetchval(find) is not None

    await until(sleeps)
    await admin.execute(f"SELECT pg_terminate_backend(({find}))")
    assert isinstance(classify(await sleeping), RetryError)


async def test_a_transaction_whose_connection_was_lost_earlier_is_retried(worker: AsyncEngine, admin: Session) -> None:
    async with worker.connect() as conn:
        await admin.execute("SELECT pg_terminate_backend($1)", await conn.scalar(text("SELECT pg_backend_pid()")))
        with pytest.raises(RetryError), classify_errors():
            await conn.execute(text("SELECT 1"))
        with pytest.raises(RetryError, match="lost earlier"), classify_errors():
            await conn.execute(text("SELECT 1"))


async def test_a_server_that_is_away_is_retried(database: DatabaseSettings) -> None:
    for url in ("postgresql://127.0.0.1:1/orgs", "postgresql:///orgs?host=/nowhere"):
        engine = create_engine(database.model_copy(update={"url": SecretStr(url)}), "worker", direct=True)
        assert isinstance(classify(await _error(engine, "SELECT 1")), RetryError), url


async def test_a_server_that_never_answers_is_retried(database: DatabaseSettings) -> None:
    async with network_to(database.model_copy(update={"connect_timeout_s": 0.2})) as (network, through):
        network.silent = True
        assert isinstance(classify(await _error(create_engine(through, "worker"), "SELECT 1")), RetryError)


async def test_a_standby_is_retried(worker: AsyncEngine) -> None:
    """After a fail-over the old primary may still be there, read-only."""
    async with worker.connect() as conn:
        await conn.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(RetryError, match="25006"), classify_errors():
            await conn.execute(text("UPDATE journal_head SET position = 1"))


async def test_a_plan_made_before_a_migration_is_retried_and_then_works(
    database: DatabaseSettings, admin: Session
) -> None:
    engine = create_engine(database.model_copy(update={"pool_size": 1}), "worker")
    statement = "SELECT * FROM journal_head"
    async with engine.begin() as conn:
        await conn.execute(text(statement))
    await admin.execute("ALTER TABLE journal_head ADD COLUMN more text")
    assert isinstance(classify(await _error(engine, statement)), RetryError)
    async with engine.begin() as conn:
        assert (await conn.execute(text(statement))).one() == (1, 0, None)
    await engine.dispose()


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ("08000 08003 08006 53000 53100 53200 53300 58000 58030", RetryError),
        ("25P04 57014", TooSlowError),
        ("25006 25P03 40003 55P03 57P01 57P02 57P03 57P05", RetryError),
        ("23505 40001 40P01", RefoldError),
        ("22000 22001 22021 22P05 23502 23514 54000 54001", DataRefusedError),
        ("0A000 25P02 28000 42501 42601 42P01 55000 57P04 XX000 XX001 XX002", type(None)),
    ],
)
async def test_errors_of_postgres_are_classified_by_sqlstate_and_unlisted_ones_are_unknown(
    admin: Session, states: str, verdict: type[object]
) -> None:
    """Retried what passes by itself; the rest of the codes has to wait for somebody who knows what it is."""
    for state in states.split():
        with pytest.raises(asyncpg.PostgresError) as caught:
            await admin.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
        assert type(classify(caught.value)) is verdict, state


async def test_constraints_the_worker_checks_first_conflict_only_with_concurrent_transactions(admin: Session) -> None:
    """However often it comes again, nobody is parked for it; two changes of one version are wrong in the data."""
    await insert_organization(admin, ACME, "Acme")
    command_id = await insert_journal(admin, 1)

    async def clash(inserting: Coroutine[Any, Any, object]) -> bool:
        with pytest.raises(asyncpg.UniqueViolationError) as caught:
            await inserting
        verdict = classify(caught.value)
        assert isinstance(verdict, RefoldError)
        return verdict.in_data

    assert not await clash(insert_organization(admin, ACME, "Another"))
    assert not await clash(insert_organization(admin, OTHER, "Acme"))
    assert not await clash(insert_journal(admin, 2, command_id=command_id))
    assert await clash(insert_journal(admin, 2, version=1))


async def test_a_mistake_in_a_statement_is_unknown_trouble(
    worker: AsyncEngine, database: DatabaseSettings, create_login: CreateLogin
) -> None:
    for statement in ("SELEC 1", "SELECT * FROM nothing", "UPDATE journal SET code = 1", "SELECT CAST(:a AS text)"):
        assert classify(await _error(worker, statement)) is None, statement
    stranger = create_engine(await create_login(database), "worker", direct=True)
    assert classify(await _error(stranger, "SELECT 1")) is None
    nowhere = database.model_copy(update={"url": SecretStr(f"{database.url.get_secret_value()}_gone")})
    assert classify(await _error(create_engine(nowhere, "worker", direct=True), "SELECT 1")) is None


def test_a_session_that_ended_between_two_calls_is_retried() -> None:
    """What the driver says when the server's goodbye is read just before the next statement: a matter of timing."""
    said = "cannot switch to state 15; another operation (2) is in progress"
    assert isinstance(classify(asyncpg.InternalClientError(said)), RetryError)
    assert classify(asyncpg.InternalClientError("unexpected data type")) is None


def test_errors_of_other_origin_are_not_classified() -> None:
    for error in (ValueError("x"), KeyError("x"), StopError("x"), asyncio.CancelledError()):
        assert classify(error) is None
    retry = RetryError("x")
    assert classify(retry) is retry


def test_unknown_trouble_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), classify_errors():
        raise ZeroDivisionError
