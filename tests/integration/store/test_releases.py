"""Two releases on one database: the older one on the newer one's schema, as in a rolling deploy and on the way back."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import asyncpg
import pytest
from typer.testing import CliRunner

import org_service.store
from org_events.publishing.client import OrganizationClient
from org_service import runtime
from org_service.cli.app import app
from org_service.errors import PreconditionError, StopError
from org_service.settings import DatabaseSettings, Settings
from org_service.store import migrate
from org_service.store.engine import Role, Session, connect
from org_service.store.migrate import Schema
from tests.support.processes import ServiceProcess, environment

pytestmark = pytest.mark.integration

RELEASED = "0004"
"""The last release's: whoever breaks its programs must have waited for a release that doesn't need what goes."""

ADDS = """
from alembic import op

revision, down_revision = "{revision}", "{before}"
{declared}

def upgrade():
    {body}

def downgrade():
    pass
"""
# Whatever a release may add: to each table a column in front of none and behind all, with a default and without, a
# table, an index.
ADDITIONS = """
    op.execute('''DO $$ DECLARE each text; BEGIN
        FOR each IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
                AND tablename NOT IN ('alembic_version', 'schema_version') LOOP
            EXECUTE format('ALTER TABLE %I ADD COLUMN added text, ADD COLUMN numbered int NOT NULL DEFAULT 7', each);
        END LOOP;
    END $$''')
    op.execute("CREATE TABLE next_releases (id int)")
    op.execute("CREATE INDEX journal_added_idx ON journal (recorded_at)")
"""


@contextmanager
def next_release(folder: Path, *migrations: str) -> Iterator[None]:
    """This program as its next release: with more migrations."""
    scripts = folder / uuid4().hex
    shutil.copytree(Path(org_service.store.__path__[0]) / "migrations", scripts)
    for number, content in enumerate(migrations):
        (scripts / "versions" / f"next_{number}.py").write_text(content)
    patch = pytest.MonkeyPatch()
    patch.setattr(migrate, "SCRIPTS", str(scripts))
    try:
        yield
    finally:
        patch.undo()


def migration(revision: str, before: str, declared: str = "", body: str = "pass") -> str:
    return ADDS.format(revision=revision, before=before, declared=declared, body=body)


@pytest.fixture
async def ahead(settings: Settings, tmp_path: Path) -> Settings:
    """A database that the next release has migrated, adding whatever may be added."""
    head = migrate.head()
    with next_release(tmp_path, migration("9000", head, f"oldest_code = '{head}'", ADDITIONS.strip())):
        assert await migrate.upgrade(settings.database) == "9000"
    return settings


async def _exact(database: DatabaseSettings) -> str:
    session: Session = await connect(database, None)
    exact: Any = await session.fetchval("SELECT version_num FROM alembic_version")
    await session.close()
    return exact


def test_the_last_release_runs_on_this_schema() -> None:
    known = list(migrate.find_lineage(migrate.head()))
    assert known.index(migrate.oldest_code(migrate.head())) <= known.index(RELEASED)


async def test_what_the_last_release_sends_is_understood_and_allowed(database: DatabaseSettings) -> None:
    """Every statement of its code, planned with the rights of its role: tables, columns, types and grants are there."""
    released = (Path(__file__).parent / "released" / f"{RELEASED}.sql").read_text()
    sessions: dict[str, Session] = {}
    statements = re.findall(r"^-- (\w+): (.+)\n((?:.|\n)+?;)$", released, re.MULTILINE)
    assert len(statements) == released.count("\n-- ") > 30
    for role, name, statement in statements:
        if role not in sessions:
            sessions[role] = await connect(database, cast("Role", role))
        try:
            await sessions[role].execute(f"EXPLAIN (GENERIC_PLAN) {statement}")
        except asyncpg.PostgresError as error:
            pytest.fail(f"{role}: {name}: {error}")
    assert sessions.keys() == {"worker", "relay", "edge"}
    for session in sessions.values():
        await session.close()


async def test_every_part_of_this_release_starts_and_works_on_the_next_ones_schema(
    ahead: Settings, tmp_path: Path
) -> None:
    kafka = ahead.kafka
    processes = [ServiceProcess(role, ahead, tmp_path) for role in ("worker", "relay")]
    try:
        for process in processes:
            process.start()
        client = OrganizationClient(bootstrap_servers=kafka.bootstrap_servers, source="/test", topics=kafka.topics)
        async with client:
            org_id = uuid4()
            made = await client.create(org_id, name="Acme", timeout_s=60)
            changed = await client.update(org_id, domain="acme.com", timeout_s=60)
            assert [(each.code, each.version) for each in (made, changed)] == [(200, 1), (200, 2)]
        for process in processes:
            assert process.terminate() == 0
            assert process.errors() == []
    finally:
        for process in processes:
            process.close()
    for role in ("worker", "relay", "edge"):
        assert await runtime.find_missing(ahead, role) == []


async def test_a_job_of_this_release_leaves_a_newer_schema_as_it_is_and_says_so(
    ahead: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await migrate.upgrade(ahead.database) == "9000"
    with pytest.raises(PreconditionError, match="9000"):
        await migrate.downgrade(ahead.database, "base")
    assert await migrate.find_schema(ahead.database) == Schema("9000", migrate.head())


def test_the_command_reports_a_newer_schema_and_succeeds(ahead: Settings) -> None:
    done = CliRunner(env=environment(ahead)).invoke(app, ["migrate"])
    assert (done.exit_code, done.stdout) == (
        0,
        f"the database is at version 9000, ahead of this release ({migrate.head()}), which can run on it: "
        "nothing was changed\n",
    )


async def test_a_release_that_cannot_run_on_the_schema_says_so_and_changes_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    """The next release dropped something that this one needs, and the one after it only added: that changes nothing."""
    head = migrate.head()
    breaking = migration("9000", head)  # what declares nothing breaks
    adding = migration("9001", "9000", f"oldest_code = '{head}'")
    with next_release(tmp_path, breaking, adding):
        assert await migrate.upgrade(settings.database) == "9001"
        assert await runtime.find_missing(settings, "worker") == []
    assert await migrate.find_schema(settings.database) == Schema("9001", "9000")
    for refused in (migrate.upgrade(settings.database), runtime.find_missing(settings, "worker")):
        with pytest.raises(StopError, match=f"at version 9001.*knows version 9000; this one.*up to {head}"):
            await refused
    assert await migrate.find_schema(settings.database) == Schema("9001", "9000")
    assert await _exact(settings.database) == "9001"


async def test_programs_that_ask_for_their_own_version_alone_find_it_for_as_long_as_they_can_run(
    empty_database: DatabaseSettings, tmp_path: Path
) -> None:
    """Up to 0004 a process started where `alembic_version` had its own version, and nowhere else."""
    await migrate.upgrade(empty_database, "0003")
    assert await _exact(empty_database) == "0003"
    await migrate.upgrade(empty_database)
    head = migrate.head()
    assert await _exact(empty_database) == "0004"
    with next_release(tmp_path, migration("9000", head, "oldest_code = '0004'"), migration("9001", "9000")):
        await migrate.upgrade(empty_database, "9000")
        assert await _exact(empty_database) == "0004"
        await migrate.upgrade(empty_database, "9001")
        assert await _exact(empty_database) == "9001"
        await migrate.downgrade(empty_database, "9000")
        assert await _exact(empty_database) == "0004"


async def test_a_database_of_the_last_release_is_upgraded_in_place(empty_database: DatabaseSettings) -> None:
    """It has the table that alembic makes, and no other."""
    await migrate.upgrade(empty_database, "0004")
    session = await connect(empty_database, None)
    await session.execute("DROP TABLE schema_version")
    assert await migrate.current(empty_database) == "0004"
    steps: list[str] = []
    assert await migrate.upgrade(empty_database, report=steps.append) == migrate.head()
    assert not [step for step in steps if step.startswith("up 000") and step < "up 0005"]
    assert await session.fetchval("SELECT version_num FROM schema_version") == migrate.head()
    await session.close()
