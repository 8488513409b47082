"""Each role may do what its part of the service does, and nothing more."""

import asyncpg
import pytest

from org_service.settings import DatabaseSettings
from org_service.store.engine import Role, Session, connect
from tests.integration.store.rows import ACME, insert_journal, insert_organization, insert_parked

pytestmark = pytest.mark.integration

WRITES = {
    "organization": (
        "INSERT INTO organization SELECT * FROM organization",
        "UPDATE organization SET version = 2",
        "DELETE FROM organization",
        "TRUNCATE organization",
    ),
    "journal": (
        "INSERT INTO journal SELECT * FROM journal",
        "UPDATE journal SET outcome = 'applied'",
        "DELETE FROM journal",
        "TRUNCATE journal",
    ),
    "journal_head": (
        "INSERT INTO journal_head VALUES (1, 1)",
        "UPDATE journal_head SET position = 9",
        "UPDATE journal_head SET id = 1",
        "DELETE FROM journal_head",
        "TRUNCATE journal_head",
    ),
    "journal_gap": (
        "INSERT INTO journal_gap VALUES (1, 1, now())",
        "UPDATE journal_gap SET last_position = 9",
        "DELETE FROM journal_gap",
        "TRUNCATE journal_gap",
    ),
    "parked": (
        "INSERT INTO parked OVERRIDING SYSTEM VALUE SELECT * FROM parked",
        "UPDATE parked SET state = 'released', attempts = 2, reason = 'data_refused', detail = ''",
        "UPDATE parked SET value = ''",
        "UPDATE parked SET command_id = NULL",
        "DELETE FROM parked",
        "TRUNCATE parked",
    ),
    "membership": (
        "INSERT INTO membership SELECT * FROM membership",
        "UPDATE membership SET role = 'admin'",
        "DELETE FROM membership",
        "TRUNCATE membership",
    ),
    "partnership": (
        "INSERT INTO partnership SELECT * FROM partnership",
        "UPDATE partnership SET role = 'admin'",
        "DELETE FROM partnership",
        "TRUNCATE partnership",
    ),
    "staff": (
        "INSERT INTO staff SELECT * FROM staff",
        "UPDATE staff SET user_id = 'ann'",
        "DELETE FROM staff",
        "TRUNCATE staff",
    ),
    "reference_progress": (
        "INSERT INTO reference_progress SELECT * FROM reference_progress",
        "UPDATE reference_progress SET next_offset = 0",
        "DELETE FROM reference_progress",
        "TRUNCATE reference_progress",
    ),
    "accepted_command": (
        "INSERT INTO accepted_command SELECT * FROM accepted_command",
        "UPDATE accepted_command SET actor = 'ann'",
        'UPDATE accepted_command SET "partition" = 1, "offset" = 2, accepted_at = now()',
        "DELETE FROM accepted_command",
        "TRUNCATE accepted_command",
    ),
    "lost_range": (
        "INSERT INTO lost_range OVERRIDING SYSTEM VALUE SELECT * FROM lost_range",
        "UPDATE lost_range SET why = 'expired'",
        "DELETE FROM lost_range",
        "TRUNCATE lost_range",
    ),
    "schema_version": ("UPDATE schema_version SET version_num = '9'", "DELETE FROM schema_version"),
    "alembic_version": ("UPDATE alembic_version SET version_num = '9'", "DELETE FROM alembic_version"),
    "anything": ("CREATE TABLE mine ()", "DROP TABLE journal", "ALTER TABLE journal ADD COLUMN more text"),
}

WORKER_MAY = {
    "UPDATE organization SET version = 2",
    "UPDATE journal_head SET position = 9",
    "UPDATE parked SET state = 'released', attempts = 2, reason = 'data_refused', detail = ''",
    "UPDATE reference_progress SET next_offset = 0",
    *(statement for table in ("membership", "partnership", "staff") for statement in WRITES[table][:3]),
}
WORKER_MAY_INSERT = {
    "INSERT INTO organization",
    "INSERT INTO journal ",
    "INSERT INTO parked",
    "INSERT INTO reference_progress",
    "INSERT INTO lost_range",
}
EDGE_MAY = {
    "INSERT INTO accepted_command SELECT * FROM accepted_command",
    'UPDATE accepted_command SET "partition" = 1, "offset" = 2, accepted_at = now()',
    "DELETE FROM accepted_command",
}
OPERATE_MAY = {
    "UPDATE organization SET version = 2",
    "UPDATE journal_head SET position = 9",
    "UPDATE parked SET state = 'released', attempts = 2, reason = 'data_refused', detail = ''",
    "UPDATE parked SET command_id = NULL",
}
OPERATE_MAY_INSERT = {"INSERT INTO organization", "INSERT INTO journal "}
CORE = {"organization", "journal", "journal_head", "journal_gap", "parked", "alembic_version", "schema_version"}
REFERENCE = {"membership", "partnership", "staff"}


async def _refused(session: Session, statement: str) -> bool:
    """Whether Postgres refuses it for lack of rights; whatever it does is rolled back."""
    transaction = session.transaction()
    await transaction.start()
    try:
        await session.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        return True
    except asyncpg.PostgresError:
        return False
    finally:
        await transaction.rollback()
    return False


@pytest.mark.parametrize("role", ["relay", "reader"])
async def test_relay_and_reader_can_write_nothing(database: DatabaseSettings, role: Role) -> None:
    session = await connect(database, role)
    for statement in (each for group in WRITES.values() for each in group):
        assert await _refused(session, statement), statement
    await session.close()


async def test_the_worker_can_write_what_it_must_and_nothing_else(database: DatabaseSettings) -> None:
    session = await connect(database, "worker")
    for statement in (each for group in WRITES.values() for each in group):
        allowed = statement in WORKER_MAY or any(statement.startswith(prefix) for prefix in WORKER_MAY_INSERT)
        assert await _refused(session, statement) is not allowed, statement
    await session.close()


async def test_the_worker_writes_and_locks_as_it_does_in_a_batch(database: DatabaseSettings) -> None:
    session = await connect(database, "worker")
    await insert_organization(session, ACME, "Acme")
    assert len(await session.fetch("SELECT id FROM organization WHERE id = $1 FOR UPDATE", ACME)) == 1
    await insert_journal(session, 1)
    await insert_parked(session, 1)
    assert len(await session.fetch("SELECT id FROM parked WHERE state = 'open' FOR UPDATE")) == 1
    await session.close()


async def test_the_edge_can_write_nothing_but_what_it_accepted(database: DatabaseSettings) -> None:
    session = await connect(database, "edge")
    for statement in (each for group in WRITES.values() for each in group):
        assert await _refused(session, statement) is (statement not in EDGE_MAY), statement
    await session.close()


async def test_an_operator_decides_what_is_parked_and_changes_nothing_that_came_from_kafka(
    database: DatabaseSettings,
) -> None:
    session = await connect(database, "operate")
    for statement in (each for group in WRITES.values() for each in group):
        allowed = statement in OPERATE_MAY or any(statement.startswith(prefix) for prefix in OPERATE_MAY_INSERT)
        assert await _refused(session, statement) is not allowed, statement
    await session.close()


@pytest.mark.parametrize("role", ["edge", "reader"])
async def test_only_workers_and_operators_read_what_parked_records_hold(database: DatabaseSettings, role: Role) -> None:
    session = await connect(database, role)
    for column in ("key", "value", "headers"):
        assert await _refused(session, f"SELECT {column} FROM parked"), column
    assert not await _refused(session, "SELECT command_id, org_id, state FROM parked")
    await session.close()


@pytest.mark.parametrize(
    ("role", "readable"),
    [
        ("worker", CORE | REFERENCE | {"reference_progress", "lost_range"}),
        ("relay", {"journal", "journal_head", "journal_gap", "alembic_version", "schema_version"}),
        ("edge", CORE - {"parked"} | REFERENCE | {"accepted_command", "lost_range"}),
        ("reader", CORE - {"parked"} | REFERENCE | {"reference_progress", "accepted_command", "lost_range"}),
        ("operate", CORE | REFERENCE | {"accepted_command", "lost_range"}),
    ],
)
async def test_each_role_reads_what_it_needs(database: DatabaseSettings, role: Role, readable: set[str]) -> None:
    session = await connect(database, role)
    for table in WRITES.keys() - {"anything"}:
        assert await _refused(session, f"SELECT * FROM {table}") is (table not in readable), table
    await session.close()
