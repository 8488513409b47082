"""Lives of organizations that show in what order their commands were decided: each renames it to a number."""

from collections.abc import Mapping
from uuid import UUID

import asyncpg

from org_events.commands import CreateOrganization, UpdateOrganization
from tests.support.records import FakeRecord, record_of


def live(org_id: UUID, turn: int) -> FakeRecord:
    """The command of a turn; the first one, of turn 0, creates the organization."""
    command = CreateOrganization if turn == 0 else UpdateOrganization
    return record_of(command(org_id=org_id, name=f"{org_id} {turn}"))


async def find_disorder(database: asyncpg.Connection, turns: Mapping[UUID, int]) -> list[str]:
    """What of the journal isn't as if each organization had had so many turns, in order, each decided once."""
    rows = await database.fetch(
        "SELECT org_id, outcome, version, after::jsonb ->> 'name' AS name FROM journal ORDER BY position"
    )
    found = {org_id: list[tuple[str, int, str]]() for org_id in turns}
    for org_id, *decided in rows:
        found[org_id].append(tuple(decided))
    return [
        f"{org_id}: {decided}"
        for org_id, decided in found.items()
        if decided != [("applied", turn + 1, f"{org_id} {turn}") for turn in range(turns[org_id])]
    ]
