"""`orgs parked`: groups, what a record holds, and what is said where something can't be done."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from org_events.commands import CreateOrganization
from org_service.settings import Settings
from tests.integration.operate.parking import apply, failing_for, record
from tests.support.database import execute
from tests.support.operating import Orgs
from tests.support.probing import once, probing
from tests.support.records import FakeRecord
from tests.support.topics import read_topic

pytestmark = pytest.mark.integration


async def test_groups_say_what_each_cause_holds_up_and_a_group_is_released_by_its_name(
    orgs: Orgs, settings: Settings, queue: UUID
) -> None:
    other = uuid4()
    with failing_for([other], KeyError):
        await apply(settings, record(settings, CreateOrganization(org_id=other, name="Globex")))
    await apply(settings, FakeRecord(b"k", b"\xff", [], topic=settings.kafka.topics.commands))
    groups = (await orgs("parked", "--json")).json_lines
    found = {(each["reason"], each["cause"].split(" ")[0]): each for each in groups}
    counts = {key: (each["records"], each["organizations"], each["waiting"]) for key, each in found.items()}
    assert counts == {
        ("handler_raised", "ZeroDivisionError"): (1, 1, 2),
        ("handler_raised", "KeyError"): (1, 1, 0),
        ("unreadable", "the"): (1, 0, 0),
    }
    assert "holds up 1 organizations, 2 commands wait behind" in (await orgs("parked")).stdout
    name = found["handler_raised", "ZeroDivisionError"]["group"]
    ran = (await orgs("parked", "release", "--group", name, "--execute", "--reason", "fixed", "--json")).json
    assert (ran["kind"], ran["counts"]) == ("parked release", {"applied": 3})
    assert len((await orgs("parked", "--json")).json_lines) == 2
    missing = await orgs("parked", "release", "--group", name, code=1)
    assert f"nothing is parked in a group '{name}'" in missing.stderr
    assert "say which records" in (await orgs("parked", "release", code=2)).stderr
    assert "unknown; there are" in (await orgs("parked", "discard", "--parked-for", "x", code=2)).stderr


async def test_contents_are_masked_until_somebody_says_why_and_that_is_kept(
    orgs: Orgs, database: asyncpg.Connection, queue: UUID
) -> None:
    first = str(await database.fetchval("SELECT min(id) FROM parked"))
    masked = (await orgs("parked", "show", first, "--json")).json
    assert masked["value"] == {"org_id": str(queue), "name": "•••"}
    assert (masked["type"], masked["state"], masked["releases_left"]) == ("org.create", "open", 3)
    assert len(masked["queue"]) == 3
    said = await orgs("parked", "show", first)
    assert "Acme" not in said.stdout
    assert "its queue, in order:" in said.stdout
    assert "--reveal needs --reason" in (await orgs("parked", "show", first, "--reveal", code=2)).stderr
    reveal = ("--reveal", "--reason", "asked by support", "--actor", "bob")
    # Where all that changes something needs a second person, too: this changes nothing.
    revealed = await orgs("parked", "show", first, *reveal, "--json", ORGS_OPERATE__APPROVAL_ABOVE="0")
    assert revealed.json["value"] == {"org_id": str(queue), "name": "Acme"}
    (kept,) = (await orgs("runs", "list", "--json")).json_lines
    told = (kept["kind"], kept["state"], kept["requested_by"], kept["reason"], kept["parameters"])
    assert told == ("parked reveal", "done", "bob", "asked by support", {"parked_id": int(first)})


async def test_what_failed_again_is_told_by_the_exit_code(orgs: Orgs, queue: UUID) -> None:
    with failing_for([queue]):
        ran = await orgs("parked", "release", "--all", "--execute", "--reason", "a try", code=1)
    assert "1 failed again, 2 waiting behind a failed one" in ran.stdout


async def test_marks_bound_what_is_listed_released_and_discarded(orgs: Orgs, settings: Settings, queue: UUID) -> None:
    await orgs("mark", "between")
    other = uuid4()
    with failing_for([other]):
        await apply(settings, record(settings, CreateOrganization(org_id=other, name="Globex")))

    async def listed(*options: str) -> list[str]:
        *records, totals = (await orgs("parked", "list", "--json", *options)).json_lines
        assert totals["total"] == len(records)
        return [each["org_id"] for each in records]

    assert await listed("--from-mark", "between") == [str(other)]
    assert await listed("--to-mark", "between") == [str(queue)] * 3
    assert await listed("--to-mark", "between", "--org", str(other)) == []
    (plan,) = (await orgs("parked", "release", "--from-mark", "between", "--json")).json_lines
    assert [each["org_id"] for each in plan["sample"]] == [str(other)]
    ran = await orgs("parked", "discard", "--to-mark", "between", "--execute", "--reason", "old", "--json")
    assert ran.json["counts"] == {"discarded": 3}
    assert await listed() == [str(other)]
    refused = await orgs("parked", "list", "--from-mark", "never", code=1)
    assert "there is no mark 'never'" in refused.stderr
    both = await orgs("parked", "list", "--from-mark", "between", "--from-time", "2026-11-01", code=2)
    assert "exclude each other" in both.stderr


async def test_an_edit_that_cannot_be_made_says_why(orgs: Orgs, database: asyncpg.Connection, queue: UUID) -> None:
    first = str(await database.fetchval("SELECT min(id) FROM parked"))
    edit = ("parked", "edit", first, "--body")
    wrong = await orgs(*edit, '{"name": ""}', code=1)
    assert "the new command has wrong fields: name: " in wrong.stderr
    assert "the new command has unknown fields: nam" in (await orgs(*edit, '{"name": "A", "nam": "B"}', code=1)).stderr
    assert "is not JSON" in (await orgs(*edit, "{", code=2)).stderr
    elsewhere = await orgs(*edit, f'{{"name": "A", "org_id": "{uuid4()}"}}', code=1)
    assert "the new command can't be read: The record's key must be org_id" in elsewhere.stderr
    tokens = {"ORGS_AUTH__COMMANDS": "tokens", "ORGS_AUTH__ISSUER": "https://issuer.example"}
    refused = await orgs(*edit, '{"name": "A"}', code=1, **tokens)
    assert "accepts commands only with their user's token" in refused.stderr
    plan = await orgs(*edit, '{"name": "A"}')
    assert "2 commands that wait behind it are decided before the new one" in plan.stdout
    assert "there is no parked record 99" in (await orgs("parked", "show", "99", code=1)).stderr


async def test_an_edit_sends_nothing_where_another_ended_the_record_as_it_began(
    orgs: Orgs, settings: Settings, queue: UUID
) -> None:
    first = (await orgs("parked", "list", "--json")).json_lines[0]["id"]
    plan = (await orgs("parked", "edit", str(first), "--body", '{"name": "A"}', "--json")).json

    async def end() -> None:
        await execute(settings, f"UPDATE parked SET state = 'discarded', ended_at = now() WHERE id = {first}")

    with probing("operate.after_take", once(end)):
        refused = await orgs("run", plan["id"], "--reason", "a test", code=1)
    assert f"record {first} was discarded already" in refused.output
    assert await read_topic(settings, settings.kafka.topics.commands) == []
