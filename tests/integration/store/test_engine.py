import asyncio
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from org_service.errors import RetryError, UnreachableError
from org_service.settings import DatabaseSettings
from org_service.store import accepted
from org_service.store import engine as engine_module
from org_service.store.engine import Role, Session, connect, create_engine
from org_service.store.failures import classify, classify_errors
from tests.integration.store.conftest import CreateDatabase, CreateLogin
from tests.integration.store.proxy import network_to

pytestmark = pytest.mark.integration


async def _setting(conn: AsyncConnection, name: str) -> Any:
    return await conn.scalar(text("SELECT current_setting(:name)"), {"name": name})


@pytest.mark.parametrize("role", ["owner", "worker", "relay", "reader"])
async def test_a_session_has_the_rights_of_its_role_and_no_others(database: DatabaseSettings, role: Role) -> None:
    engine = create_engine(database, role)
    async with engine.connect() as conn:
        assert await conn.scalar(text("SELECT current_user")) == f"orgs_{role}"
        assert await _setting(conn, "application_name") == f"orgs-{role}"
        await conn.execute(text("RESET ROLE"))
        assert await conn.scalar(text("SELECT current_user")) == f"orgs_{role}"
    await engine.dispose()


async def test_a_login_with_only_these_rights_assumes_no_role(
    database: DatabaseSettings, create_login: CreateLogin
) -> None:
    login = (await create_login(database)).model_copy(update={"assume_role": False})
    engine = create_engine(login, "worker", direct=True)
    async with engine.connect() as conn:
        assert await conn.scalar(text("SELECT current_user = session_user"))


async def test_a_session_has_every_limit(create_database: CreateDatabase, template_database: str) -> None:
    database = await create_database(template_database, statement_timeout_s=1.5)
    engine = create_engine(database, "worker", direct=True)
    async with engine.connect() as conn:
        assert await _setting(conn, "statement_timeout") == "1500ms"
        assert await _setting(conn, "idle_in_transaction_session_timeout") == "1500ms"
        assert await _setting(conn, "transaction_timeout") == "3s"
        assert await _setting(conn, "jit") == "off"
        assert await _setting(conn, "tcp_keepalives_idle") == "10"
        assert await _setting(conn, "tcp_user_timeout") == "25000"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres@127.0.0.1:{port}/{name}",
        "postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable",
        "postgresql:///{name}?host=127.0.0.1&port={port}&user=postgres&sslmode=prefer",
        "postgresql://postgres:a%40b%2Fc@127.0.0.1:{port}/{name}",
        "postgresql://postgres@127.0.0.1:1,127.0.0.1:{port}/{name}?target_session_attrs=read-write",
        "postgresql://postgres@127.0.0.1:{port}/{name}?geqo=off",
    ],
)
async def test_urls_are_read_as_libpq_reads_them(database: DatabaseSettings, url: str) -> None:
    parts = urlsplit(database.url.get_secret_value())
    written = url.format(port=parts.port, name=parts.path.lstrip("/"))
    engine = create_engine(database.model_copy(update={"url": SecretStr(written)}), "worker", direct=True)
    async with engine.connect() as conn:
        assert await conn.scalar(text("SELECT current_user")) == "orgs_worker"
        assert await _setting(conn, "geqo") == ("off" if "geqo" in url else "on")


async def test_json_comes_back_as_it_went(database: DatabaseSettings) -> None:
    address = {"line1": "Ærøgade 1 \N{SNOWMAN}", "line2": None, "number": 12345678901234567890}
    engine = create_engine(database, "worker", direct=True)
    async with engine.connect() as conn:
        assert await conn.scalar(select(bindparam("address", type_=JSONB)), {"address": address}) == address


async def test_the_pool_opens_no_connection_beyond_its_size(
    create_database: CreateDatabase, template_database: str
) -> None:
    database = await create_database(template_database, pool_size=1, connect_timeout_s=0.2)
    engine = create_engine(database, "worker")
    async with engine.connect():
        with pytest.raises(Exception, match="limit of size 1") as caught:
            await engine.connect()
    assert isinstance(classify(caught.value), RetryError)
    await engine.dispose()


async def test_an_error_shows_no_parameters(database: DatabaseSettings) -> None:
    engine = create_engine(database, "worker", direct=True)
    async with engine.connect() as conn:
        with pytest.raises(DBAPIError) as caught:
            await conn.execute(text("SELECT 1 / 0, CAST(:name AS text)"), {"name": "a customer's name"})
    assert "customer" not in str(caught.value)


async def _select(conn: AsyncConnection) -> None:
    await conn.execute(text("SELECT 2"))


async def _commit(conn: AsyncConnection) -> None:
    await conn.commit()


@pytest.mark.parametrize("action", [_select, _commit])
@pytest.mark.parametrize("cancelled", [False, True], ids=["left alone", "cancelled"])
async def test_no_call_waits_forever_in_a_silent_network(
    create_database: CreateDatabase,
    template_database: str,
    monkeypatch: pytest.MonkeyPatch,
    action: Any,
    cancelled: bool,
) -> None:
    """SQLAlchemy issue 12728, for both a connection left alone and a task cancelled on it."""
    monkeypatch.setattr(engine_module, "ANSWER_MARGIN_S", 0.5)
    database = await create_database(template_database, statement_timeout_s=0.5, pool_size=1, connect_timeout_s=5)
    async with network_to(database) as (network, through):
        engine = create_engine(through, "worker")

        async def use() -> None:
            async with engine.connect() as conn:
                await conn.execute(text("SELECT 1"))
                network.silent = True
                await action(conn)

        async with asyncio.timeout(15):
            with pytest.raises(TimeoutError if cancelled else UnreachableError) as caught:
                async with asyncio.timeout(0.1 if cancelled else None):
                    await use()
            assert isinstance(classify(caught.value), RetryError)
            assert cancelled or str(caught.value) == (
                f"Postgres at {through.address} does not respond in time, or the connection broke: TimeoutError"
            )
            network.silent = False
            async with engine.connect() as conn:
                assert await conn.scalar(text("SELECT 3")) == 3
        await engine.dispose()


async def test_a_plan_made_on_an_empty_journal_does_not_outlive_it(database: DatabaseSettings, admin: Session) -> None:
    session = await connect(database, "worker")
    await session.execute("PREPARE find AS SELECT position FROM journal WHERE command_id = ANY($1::uuid[])")
    ids = "'{" + ",".join(str(uuid4()) for _ in range(100)) + "}'"
    for _ in range(7):  # Postgres thinks of caching from the sixth on
        await session.execute(f"EXECUTE find({ids})")
    await admin.execute(
        "INSERT INTO journal SELECT i, gen_random_uuid(), NULL, NULL, 'org.update', NULL, 'rejected', 409, NULL, '', "
        "0, i, NULL, NULL, NULL, NULL, NULL, now() FROM generate_series(1, 20000) i"
    )
    plan = "\n".join(row[0] for row in await session.fetch(f"EXPLAIN EXECUTE find({ids})"))
    assert "journal_command_id_key" in plan
    await session.close()


async def _between_statements(session: Session) -> None:
    await session.execute("SELECT 1")


async def _before_running_what_it_prepared(session: Session) -> None:
    await session.prepare("SELECT 1")


async def _within_a_message(session: Session) -> None:
    session._transport.write(b"Q\x00\x01\x00\x00SELECT")


async def _before_reading_the_answer(session: Session) -> None:
    session._transport.pause_reading()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await asyncio.shield(asyncio.ensure_future(session.fetch("SELECT repeat('x', 100000000)")))


@pytest.mark.parametrize(
    "stop",
    [_between_statements, _before_running_what_it_prepared, _within_a_message, _before_reading_the_answer],
)
async def test_a_process_that_stops_within_a_transaction_frees_its_locks(
    create_database: CreateDatabase, template_database: str, monkeypatch: pytest.MonkeyPatch, stop: Any
) -> None:
    for name in ("KEEPALIVE_IDLE_S", "KEEPALIVE_INTERVAL_S", "KEEPALIVE_COUNT"):
        monkeypatch.setattr(engine_module, name, 1)
    database = await create_database(template_database, statement_timeout_s=0.3)
    stopped = await connect(database, "worker")
    await stopped.execute("BEGIN; UPDATE journal_head SET position = 1")
    await stop(stopped)
    database = database.model_copy(update={"statement_timeout_s": 10})
    other: Session = await connect(database, "worker")
    await other.execute("UPDATE journal_head SET position = position + 1")
    assert await other.fetchval("SELECT position FROM journal_head") == 1
    await other.close()
    stopped.terminate()


async def test_a_broken_connection_is_replaced(database: DatabaseSettings, admin: Session) -> None:
    engine: AsyncEngine = create_engine(database, "worker")
    async with engine.connect() as conn:
        pid = await conn.scalar(text("SELECT pg_backend_pid()"))
    await admin.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises(DBAPIError) as caught:
        async with engine.connect() as conn:
            await conn.execute(text("SELECT 1"))
    assert isinstance(classify(caught.value), RetryError)
    async with engine.connect() as conn:
        assert await conn.scalar(text("SELECT 1")) == 1
    await engine.dispose()


async def test_the_edge_leaves_a_server_that_is_read_only_when_it_can_write_nothing_down(
    database: DatabaseSettings, admin: Session
) -> None:
    """Else every 202 would be remembered in memory alone, for as long as the process lives."""
    name = await admin.fetchval("SELECT current_database()")
    edge = create_engine(database, "edge").execution_options(isolation_level="AUTOCOMMIT")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with edge.connect() as conn:
        standby = await conn.scalar(text("SELECT pg_backend_pid()"))
        with pytest.raises(RetryError, match="25006"), classify_errors():
            await accepted.remember(conn, uuid4(), "ann", uuid4(), datetime.now(UTC))
    await admin.execute("SET default_transaction_read_only = off")
    await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    async with edge.connect() as conn:
        assert await conn.scalar(text("SELECT pg_backend_pid()")) != standby
        await accepted.remember(conn, uuid4(), "ann", uuid4(), datetime.now(UTC))
    assert await admin.fetchval("SELECT count(*) FROM accepted_command") == 1
    await edge.dispose()


async def test_connections_to_a_server_that_is_read_only_are_left(database: DatabaseSettings, admin: Session) -> None:
    """A former primary, or one that may not be written for a while; it stays up, so they would never break."""
    name = await admin.fetchval("SELECT current_database()")
    engine = create_engine(database.model_copy(update={"pool_size": 2}), "worker")
    await admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with engine.connect() as first, engine.connect() as second:
        standby = {await conn.scalar(text("SELECT pg_backend_pid()")) for conn in (first, second)}
    with pytest.raises(DBAPIError) as caught:
        async with engine.begin() as conn:
            await conn.execute(text("SELECT id FROM organization FOR UPDATE"))
    assert isinstance(classify(caught.value), RetryError)
    await admin.execute("SET default_transaction_read_only = off")
    await admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    async with engine.begin() as first, engine.begin() as second:
        for conn in (first, second):
            assert await conn.scalar(text("SELECT pg_backend_pid()")) not in standby
            await conn.execute(text("SELECT id FROM organization FOR UPDATE"))
    await engine.dispose()
