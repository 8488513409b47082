import asyncio
import base64
import re
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection
from sqlmodel import SQLModel

from org_events.reference import Role as MemberRole
from org_service import runtime
from org_service.domain.organization import name_key
from org_service.domain.reasons import AuthenticatedBy, LossReason, ParkedState, ParkReason
from org_service.errors import DeniedError, PreconditionError, RetryError
from org_service.settings import DatabaseSettings, Settings
from org_service.store import migrate, roles, tables
from org_service.store.engine import Role, Session, connect, create_engine
from org_service.store.failures import classify_errors
from tests.integration.store.conftest import CreateDatabase, CreateLogin
from tests.integration.store.proxy import network_to
from tests.integration.store.rows import AT, insert_journal, insert_organization, insert_parked
from tests.support.probing import probing

pytestmark = pytest.mark.integration

VERSIONS = {"alembic_version", "alembic_version_pkc", "schema_version", "schema_version_pkc"}
PERSIAN = "\u0646\u0627\u0645\u0647\u200c\u0647\u0627"
"""Written with a joiner, as is right."""
MIGRATIONS = [f"{number:04}" for number in range(1, 21)]
TABLES = set(tables.OrganizationRow.metadata.tables)

# Whatever distinguishes one table from another: columns, constraints (deferrable or not), indexes, storage.
CATALOG = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text, a.attidentity::text,
    a.attnum::text,
    coalesce(pg_get_expr(d.adbin, d.adrelid), '') || coalesce(nullif(a.attcollation, 0)::regcollation::text, '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (c.oid, attnum)
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), condeferrable::text,
    condeferred::text, '', ''
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'index', tablename, indexname, indexdef, '', '', '', '' FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'storage', relname, relkind::text, relpersistence::text, coalesce(reloptions::text, ''), '', '', ''
FROM pg_class WHERE relnamespace = 'public'::regnamespace
ORDER BY 1, 2, 3
"""


async def _catalog(database: DatabaseSettings) -> list[tuple[Any, ...]]:
    session = await connect(database, None)
    rows = [tuple(row) for row in await session.fetch(CATALOG) if row[1] not in VERSIONS]
    await session.close()
    return rows


async def test_asking_a_silent_server_for_its_version_is_bounded(database: DatabaseSettings) -> None:
    async with network_to(database.model_copy(update={"connect_timeout_s": 1, "statement_timeout_s": 1})) as (net, far):

        async def fall_silent(_: Session) -> None:
            net.silent = True

        async with asyncio.timeout(20):
            with (
                probing("store.after_connect", fall_silent),
                pytest.raises(RetryError, match="does not respond in time"),
                classify_errors(),
            ):
                await migrate.current(far)


async def test_upgrade_downgrade_and_upgrade_again(empty_database: DatabaseSettings) -> None:
    assert await migrate.current(empty_database) is None
    steps: list[str] = []
    await migrate.upgrade(empty_database, report=steps.append)
    assert await migrate.current(empty_database) == migrate.head() == MIGRATIONS[-1]
    first = await _catalog(empty_database)
    assert {row[1] for row in first if row[0] == "column"} == TABLES

    await migrate.downgrade(empty_database, "base", report=steps.append)
    assert await migrate.current(empty_database) is None
    assert await _catalog(empty_database) == []

    await migrate.upgrade(empty_database, report=steps.append)
    assert await _catalog(empty_database) == first
    up, down = [f"up {each}" for each in MIGRATIONS], [f"down {each}" for each in reversed(MIGRATIONS)]
    assert [step.split(":")[0] for step in steps] == [*up, *down, *up]


async def test_the_tokens_of_parked_commands_become_the_names_of_their_users(empty_database: DatabaseSettings) -> None:
    await migrate.upgrade(empty_database, "0008")
    admin = await connect(empty_database, None)
    claims = base64.urlsafe_b64encode(b'{"sub": "ann", "aud": "orgs"}').rstrip(b"=").decode()
    token = base64.b64encode(f"Bearer e30.{claims}.c2ln".encode()).decode()
    none = base64.b64encode(b"Basic YTpi").decode()
    rows = [
        (f'[["ce_id","YQ=="],["authorization","{token}"],["x",null]]', uuid4()),
        (f'[["Authorization","{token}"],["ce_id","/w=="]]', None),
        (f'[["authorization","{none}"]]', uuid4()),
        ('[["ce_actor","Ym9i"]]', uuid4()),
    ]
    for offset, (headers, command_id) in enumerate(rows):
        await insert_parked(admin, offset, headers=headers, command_id=command_id, detail="why")
    await migrate.upgrade(empty_database, "0011")
    async with admin.transaction():
        await admin.execute("LOCK TABLE parked IN SHARE UPDATE EXCLUSIVE MODE")  # whoever reads and writes may go on
        await migrate.upgrade(empty_database, "0012")
    kept = await admin.fetch("SELECT headers, detail, actor, authenticated_by FROM parked ORDER BY id")
    await admin.close()
    unverified = "why; its token was not verified, and is not kept"
    assert [tuple(row) for row in kept] == [
        ('[["ce_id","YQ=="],["x",null]]', "why", "ann", "token"),
        ('[["ce_id","/w=="]]', unverified, None, None),
        ("[]", unverified, None, None),
        ('[["ce_actor","Ym9i"]]', "why", None, None),
    ]


async def test_names_get_the_form_used_for_comparisons(database: DatabaseSettings) -> None:
    await migrate.downgrade(database, "0009")
    later = AT + timedelta(days=1)
    rows = [
        # name, key by the rule before, created, key afterwards
        ("Acme", "acme", AT, "acme"),
        ("Ac\u200bme", "ac\u200bme", AT, "ac\u200bme"),  # taken: it keeps what it has
        (PERSIAN, PERSIAN, AT, PERSIAN.replace("\u200c", "")),
        ("Bolt\u2060", "bolt\u2060", later, "bolt\u2060"),
        ("Bolt \u00ad", "bolt \u00ad", AT, "bolt"),  # the older one
        ("E\u034f\u0301cole", "e\u034f\u0301cole", AT, "\u00e9cole"),
        ("\u200b", "\u200b", AT, "\u200b"),
        ("Gone\u200b", None, AT, None),
    ]  # fmt: skip
    session = await connect(database, None)
    for name, key, created_at, _ in rows:
        deleted_at = None if key else AT
        await insert_organization(session, uuid4(), name, name_key=key, created_at=created_at, deleted_at=deleted_at)
    await migrate.upgrade(database)
    found = {row["name"]: row["name_key"] for row in await session.fetch("SELECT name, name_key FROM organization")}
    await session.close()
    assert found == {name: key for name, _, _, key in rows}
    assert all(name_key(name) == found[name] for name in ("Acme", rows[2][0], rows[4][0], rows[5][0]))


async def test_an_upgrade_of_an_up_to_date_database_changes_nothing(database: DatabaseSettings, admin: Session) -> None:
    await insert_journal(admin, 1)
    steps: list[str] = []
    await migrate.upgrade(database, report=steps.append)
    assert steps == []
    assert await admin.fetchval("SELECT position FROM journal_head") == 1


async def test_a_database_that_cannot_hold_every_name_is_refused(
    empty_database: DatabaseSettings, admin: Session
) -> None:
    name = f"latin_{uuid4().hex}"
    await admin.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
    server = empty_database.url.get_secret_value().rpartition("/")[0]
    try:
        with pytest.raises(PreconditionError, match=r"LATIN1.*UTF8"):
            await migrate.upgrade(DatabaseSettings(url=SecretStr(f"{server}/{name}")))
    finally:
        await admin.execute(f"DROP DATABASE {name}")


async def test_a_server_that_is_too_old_is_refused(
    empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "VERSION_MIN", 1_000)
    with pytest.raises(PreconditionError, match="needs 1000 or newer"):
        await migrate.upgrade(empty_database)
    assert await migrate.current(empty_database) is None


async def test_the_journal_begins_at_position_zero(admin: Session) -> None:
    assert [tuple(row) for row in await admin.fetch("SELECT id, position FROM journal_head")] == [(1, 0)]


async def test_the_models_and_the_migrations_make_the_same_tables(
    empty_database: DatabaseSettings, database: DatabaseSettings
) -> None:
    engine = create_engine(empty_database, None, direct=True)
    async with engine.begin() as conn:
        await conn.run_sync(SQLModel.metadata.create_all)
    assert await _catalog(database) == await _catalog(empty_database)


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        ("journal_outcome_check", {"applied", "unchanged", "rejected"}),
        ("parked_reason_check", set(ParkReason)),
        ("parked_state_check", set(ParkedState)),
        ("parked_authenticated_by_check", set(AuthenticatedBy)),
        ("lost_range_why_check", set(LossReason)),
        ("membership_role_check", set(MemberRole)),
        ("partnership_role_check", set(MemberRole)),
    ],
)
async def test_the_tables_accept_the_words_of_the_code_and_no_others(
    admin: Session, constraint: str, words: set[str]
) -> None:
    definition = await admin.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1", constraint
    )
    assert set(re.findall(r"'(\w+)'", str(definition))) == words


async def test_alembic_finds_nothing_to_migrate(database: DatabaseSettings) -> None:
    def differences(conn: Connection) -> list[Any]:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, kind, _: kind != "table" or name not in VERSIONS,  # pyright: ignore[reportUnknownLambdaType]
        }
        return compare_metadata(MigrationContext.configure(conn, opts=options), SQLModel.metadata)

    engine = create_engine(database, "reader", direct=True)
    async with engine.connect() as conn:
        assert await conn.run_sync(differences) == []


async def test_two_upgrades_at_once_apply_each_migration_once(empty_database: DatabaseSettings) -> None:
    steps: list[str] = []
    await asyncio.gather(*(migrate.upgrade(empty_database, report=steps.append) for _ in range(3)))
    assert [step.split(":")[0] for step in steps] == [f"up {each}" for each in MIGRATIONS]


async def test_an_upgrade_gives_up_when_another_one_takes_too_long(
    empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_WAIT_S", 0.1)
    other = await connect(empty_database, None)
    await other.execute("SELECT pg_advisory_lock($1)", migrate.LOCK_KEY)
    with pytest.raises(RetryError, match="Another migration"):
        await migrate.upgrade(empty_database)
    await other.close()
    assert await migrate.current(empty_database) is None


async def test_a_migration_that_waits_for_a_table_gives_up_and_leaves_nothing(
    database: DatabaseSettings, admin: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "TABLE_LOCK_TIMEOUT_MS", 100)
    async with admin.transaction():
        await insert_journal(admin, 1)
        await admin.execute(f"LOCK TABLE {', '.join(sorted(TABLES - {'operation', 'mark'}))} IN ACCESS SHARE MODE")
        with pytest.raises(Exception, match="lock timeout"):
            await migrate.downgrade(database, "base")
    assert await migrate.current(database) == "0020"
    assert await admin.fetchval("SELECT count(*) FROM journal") == 1
    assert await admin.fetchval("SELECT count(*) FROM parked") == 0


async def test_the_owner_role_owns_everything(admin: Session) -> None:
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'"
    assert [row[0] for row in await admin.fetch(owners)] == ["orgs_owner"]


async def test_a_login_that_may_not_create_roles_suffices_if_all_is_prepared(
    empty_database: DatabaseSettings, create_login: CreateLogin, server: Session
) -> None:
    admin = await connect(empty_database, None)
    await admin.execute("GRANT CREATE ON SCHEMA public TO orgs_owner")
    await admin.close()
    login = await create_login(empty_database)
    await server.execute(f"GRANT orgs_owner TO {_user(login)}")
    await migrate.upgrade(login)
    assert await migrate.current(login) == MIGRATIONS[-1]


async def test_a_process_whose_login_inherits_nothing_finds_the_version_as_its_role(
    settings: Settings, create_login: CreateLogin, server: Session
) -> None:
    login = await create_login(settings.database)
    await server.execute(f"GRANT orgs_worker TO {_user(login)} WITH INHERIT FALSE, SET TRUE")
    assert await runtime.find_missing(settings.model_copy(update={"database": login}), "worker") == []


async def test_before_the_roles_exist_the_version_is_none(empty_database: DatabaseSettings) -> None:
    assert await migrate.current(empty_database, cast("Role", "nobody")) is None


async def test_a_login_without_rights_stops_with_advice_and_changes_nothing(
    empty_database: DatabaseSettings, create_login: CreateLogin
) -> None:
    login = await create_login(empty_database)
    with pytest.raises(DeniedError, match="grant it orgs_owner"):
        await migrate.upgrade(login)
    assert await _catalog(empty_database) == []


async def test_a_login_that_may_grant_nothing_in_the_schema_stops(
    empty_database: DatabaseSettings, create_login: CreateLogin, server: Session
) -> None:
    login = await create_login(empty_database)
    await server.execute(f"GRANT orgs_owner TO {_user(login)}")
    with pytest.raises(DeniedError, match="CREATE on the schema"):
        await migrate.upgrade(login)


@pytest.mark.parametrize("roles_exist", [False, True])
async def test_databases_of_one_cluster_are_prepared_at_once(
    create_database: CreateDatabase, create_login: CreateLogin, server: Session, roles_exist: bool
) -> None:
    """By a login that has no part in the roles yet; these have another name, since those of the service are in use."""
    databases = [await create_database() for _ in range(4)]
    login = await create_login(databases[0], "CREATEROLE")
    prefix = f"{_user(login)}_"
    prepare = roles.PREPARE.text.replace("orgs_", prefix)
    if roles_exist:
        for role in ("owner", "worker", "relay", "reader"):
            await server.execute(f"CREATE ROLE {prefix}{role}")
        await server.execute(f"GRANT {prefix}owner TO {_user(login)} WITH ADMIN TRUE, SET FALSE")
    sessions: list[Session] = []
    for database in databases:
        name = database.url.get_secret_value().rpartition("/")[2]
        await server.execute(f"ALTER DATABASE {name} OWNER TO {_user(login)}")
        url = login.url.get_secret_value().rpartition("/")[0] + f"/{name}"
        sessions.append(await asyncpg.connect(url))

    await asyncio.gather(*(session.execute(prepare) for session in sessions))
    for session in sessions:
        await session.execute(f"SET ROLE {prefix}owner")
        await session.execute("CREATE TABLE mine ()")
        await session.execute(f"GRANT SELECT ON mine TO {prefix}worker, {prefix}relay, {prefix}reader")
        await session.close()

    for database in databases:
        await server.execute(f"DROP DATABASE {database.url.get_secret_value().rpartition('/')[2]} WITH (FORCE)")
    for role in ("owner", "worker", "relay", "reader"):
        await server.execute(f"DROP ROLE {prefix}{role}")


def _user(database: DatabaseSettings) -> str:
    return database.url.get_secret_value().partition("//")[2].partition("@")[0]
