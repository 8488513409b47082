"""Organizations as they were, and what differs between two moments."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from org_events.commands import (
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_service.operate import past
from org_service.settings import Settings
from org_service.store.database import Database
from tests.support.database import execute, fetch
from tests.support.operating import Acting, Orgs
from tests.support.relaying import changes, journal, org

pytestmark = pytest.mark.integration


def dumped(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str | None]]:
    return {row["id"]: (row["name"], row["domain"]) for row in rows}


async def test_organizations_are_shown_exported_and_compared_as_they_were(
    orgs: Orgs, act: Acting, settings: Settings, tmp_path: Path
) -> None:
    await act("alice", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(6)])
    await act("alice", [DeleteOrganization(org_id=org(4)), DeactivateOrganization(org_id=org(5))])
    await orgs("mark", "before")
    then = (await orgs("export")).json_lines
    moment = (await fetch(settings, "SELECT max(recorded_at) AS at FROM journal"))[0]["at"]
    assert isinstance(moment, datetime)
    await act("bob", [UpdateOrganization(org_id=org(0), name="Beta", domain="beta.example")])
    await act("bob", [UpdateOrganization(org_id=org(0), domain=None)])
    await act(
        "bob", [UpdateOrganization(org_id=org(1), name="Other"), UpdateOrganization(org_id=org(1), name="Acme 1")]
    )
    await act("bob", [DeleteOrganization(org_id=org(2)), RestoreOrganization(org_id=org(4))])
    await act("bob", [CreateOrganization(org_id=org(7), name="New"), CreateOrganization(org_id=org(8), name="Gone")])
    await act("bob", [DeleteOrganization(org_id=org(8))])

    shown = await orgs("show", str(org(0)), "--at", "before", "--json")
    assert (shown.json["name"], shown.json["version"]) == ("Acme 0", 1)
    assert (await orgs("show", "Beta", "--at", "8", "--json")).json == shown.json
    assert (await orgs("show", "Beta", "--at", moment.isoformat(), "--json")).json == shown.json
    assert "Beta" in (await orgs("show", str(org(0)), "--at", "9")).stdout
    deleted = (await orgs("show", str(org(4)), "--at", "before", "--json")).json
    assert deleted["deleted_at"] is not None
    assert "was not there yet at position 8" in (await orgs("show", str(org(7)), "--at", "before", code=1)).stderr
    assert "the journal ends at 17" in (await orgs("show", str(org(0)), "--at", "18", code=1)).stderr
    assert "neither a position" in (await orgs("show", str(org(0)), "--at", "yesterday", code=1)).stderr

    exported = await orgs("export", "--at", "before")
    assert exported.json_lines == then
    assert "5 organizations as of position 8" in exported.stderr
    assert (await orgs("export", "--at", "17")).json_lines == (await orgs("export")).json_lines
    file = tmp_path / "then.csv"
    await orgs("export", str(file), "--at", "before")
    assert len(file.read_text().splitlines()) == 6

    lines = (await orgs("diff", "--from", "before", "--json")).json_lines
    found = {each["org_id"]: (each["kind"], each["from_version"], each["version"], each["changed"]) for each in lines}
    assert found == {
        str(org(0)): ("changed", 1, 3, ["name"]),
        str(org(2)): ("deleted", 1, 2, ["name"]),
        str(org(4)): ("restored", 2, 3, ["name"]),
        str(org(7)): ("created", None, 1, ["name"]),
    }
    text = await orgs("diff", "--from", moment.isoformat(), "--to", "17")
    assert "changed  v1 → v3" in text.stdout
    assert "name Acme 0 → Beta" in text.stdout
    assert "1 created, 1 changed, 1 deleted, 1 restored between positions 8 and 17" in text.stderr
    assert "0 created, 0 changed" in (await orgs("diff", "--from", "before", "--to", "before")).stderr
    assert "behind --to" in (await orgs("diff", "--from", "9", "--to", "before", code=2)).stderr


async def test_a_time_means_the_last_position_recorded_up_to_it_whatever_gaps_there_are(settings: Settings) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [{**row, "recorded_at": start + timedelta(minutes=n)} for n, row in enumerate(changes(50))]
    await journal(settings, rows)
    await execute(settings, "DELETE FROM journal WHERE position BETWEEN 20 AND 29")
    async with Database(settings.database, "reader", direct=True).connect() as conn:
        for minutes in (-1, 0, 0.5, 7, 18, 18.5, 25, 29, 48, 49, 100):
            moment = start + timedelta(minutes=minutes)
            wanted = max(
                (n for n, row in enumerate(rows, 1) if n not in range(20, 30) and row["recorded_at"] <= moment),
                default=0,
            )
            assert await past.find_position(conn, moment.isoformat()) == wanted


async def test_a_comparison_in_windows_finds_each_organization_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await journal(settings, changes(700, orgs=70))
    monkeypatch.setattr(past, "WINDOW_POSITIONS", 64)
    monkeypatch.setattr(past, "READ_ROWS_MAX", 5)
    async with Database(settings.database, "reader", direct=True).snapshot() as conn:
        found = [each async for step in past.compare(conn, 140, 420) for each in step]
    assert [each.position for each in found] == list(range(351, 421))
    assert {(each.from_version, each.version, each.kind) for each in found} == {(2, 6, "changed")}
    assert len({each.org_id for each in found}) == 70
