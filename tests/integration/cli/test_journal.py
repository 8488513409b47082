"""A database restored from an older backup than Kafka knows, and the way out."""

import asyncpg
import pytest

from org_service.errors import StopError
from org_service.operate import progress
from org_service.settings import Settings
from tests.integration.cli.conftest import Orgs, Service

pytestmark = pytest.mark.integration

BACKED_UP = 2


def name(number: int) -> str:
    return f"Org {number}"


async def create(orgs: Orgs, *numbers: int) -> None:
    for number in numbers:
        await orgs("send", "create", "--name", name(number))


async def restore_older_backup(settings: Settings) -> None:
    """What a restore leaves: the first `BACKED_UP` commands and nothing after them."""
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    await conn.execute(
        f"DELETE FROM organization WHERE id IN (SELECT org_id FROM journal WHERE position > {BACKED_UP})"
    )
    await conn.execute(f"DELETE FROM journal WHERE position > {BACKED_UP}")
    await conn.execute(f"UPDATE journal_head SET position = {BACKED_UP}")
    await conn.close()


async def positions(settings: Settings) -> tuple[list[int], int]:
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    rows = await conn.fetch("SELECT position FROM journal ORDER BY position")
    head = await conn.fetchval("SELECT position FROM journal_head")
    await conn.close()
    return [row["position"] for row in rows], head


async def published_positions(orgs: Orgs) -> list[int]:
    events = (await orgs("tail", "events", "--from-start", "--no-follow", "--json")).json_lines
    return sorted(event["value"]["position"] for event in events)


async def test_a_healthy_journal_is_left_alone(orgs: Orgs, service: Service, settings: Settings) -> None:
    never = await orgs("journal", "advance", "--yes", code=1)
    assert "has published nothing yet" in never.stderr
    service.start("worker", "relay")
    await create(orgs, 1)
    await progress.wait_until_idle(settings, 20)
    needless = await orgs("journal", "advance", "--yes", code=1)
    assert "there is no need to" in needless.stderr
    assert await positions(settings) == ([1], 1)


@pytest.mark.parametrize("fresh", [0, 1, 5])
async def test_after_an_older_backup_nothing_decided_since_is_lost(
    orgs: Orgs, service: Service, settings: Settings, fresh: int
) -> None:
    """Five commands published, two in the backup; then fewer than the three lost ones, or more."""
    service.start("worker", "relay")
    await create(orgs, 1, 2, 3, 4, 5)
    await progress.wait_until_idle(settings, 20)
    await service.stop()
    await restore_older_backup(settings)

    service.start("worker")
    for number in range(fresh):
        await orgs("send", "create", "--name", f"Fresh {number}", "--no-wait")
    await wait_until_decided(settings)
    await service.stop()
    service.start("relay")
    trouble = await service.ended("relay")
    assert isinstance(trouble, StopError)
    assert "orgs journal advance" in str(trouble)

    untouched = await positions(settings)
    asked = await orgs("journal", "advance", code=1)  # standard input is empty: nobody says yes
    assert await positions(settings) == untouched
    assert "3 decided commands are lost" in asked.stderr
    assert asked.stderr.count(" v1 org.created") == 3

    done = await orgs("journal", "advance", "--yes")
    assert f"the journal goes on at position {5 + fresh + 1}" in done.stdout
    assert await positions(settings) == ([1, 2, *range(6, 6 + fresh)], 5 + fresh)

    service.start("worker", "relay")
    await create(orgs, 6)
    await progress.wait_until_idle(settings, 20)
    assert await published_positions(orgs) == list(range(1, 5 + fresh + 2))
    assert "there is no need to" in (await orgs("journal", "advance", "--yes", code=1)).stderr


async def test_rows_that_cant_be_told_apart_are_left_alone(orgs: Orgs, service: Service, settings: Settings) -> None:
    service.start("worker", "relay")
    await create(orgs, 1, 2, 3, 4, 5)
    await progress.wait_until_idle(settings, 20)
    await service.stop()
    await restore_older_backup(settings)
    conn = await asyncpg.connect(settings.database.url.get_secret_value())
    await conn.execute("UPDATE journal SET recorded_at = recorded_at + interval '1 day' WHERE position = 1")
    await conn.close()
    refused = await orgs("journal", "advance", "--yes", code=1)
    assert "Restore a backup that holds position 5" in refused.stderr
    assert await positions(settings) == ([1, 2], 2)


async def wait_until_decided(settings: Settings) -> None:
    while (await progress.behind(settings)).commands:
        pass
