"""What is left of deleted organizations goes for good, and positions, versions and command ids stay as they are."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from org_events.commands import (
    Command,
    CreateOrganization,
    DeleteOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError
from org_service.operate import publish, runs
from org_service.operate.erase import Erase
from org_service.operate.operation import PlanMovedError, open_database
from org_service.operate.runs import NotRunnableError
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store import operations
from org_service.store.operations import Operation
from tests.support.database import execute, fetch
from tests.support.erasing import (
    ADDRESS,
    CONTACT,
    DOMAIN,
    NAME,
    STREET,
    add_deleted,
    at_once,
    find_canary,
    histories,
)
from tests.support.killing import run_killed_at
from tests.support.operating import Acting, Orgs
from tests.support.probing import once, probing
from tests.support.relaying import Running, org, seen
from tests.support.relaying import running as relaying
from tests.support.topics import read_results, read_topic

pytestmark = pytest.mark.integration

ERASED = [(1, "org.created"), (2, "org.deleted"), (3, "org.erased")]
KILLED_AT: tuple[tuple[Point, int], ...] = (
    ("operate.after_take", 1),
    ("operate.before_commit", 2),
    ("operate.after_commit", 2),
)


async def planned(settings: Settings, org_id: UUID | None = None, **how: Any) -> Operation:
    tool = await Erase.make(settings, None if org_id is None else str(org_id), **how)
    operation, _ = await runs.keep_plan(settings, tool, requested_by="bob", reason="a test")
    return operation


async def purge(settings: Settings) -> Operation:
    return await runs.run(settings, (await planned(settings)).id)


async def published(relay: Running, settings: Settings) -> None:
    (head,) = await fetch(settings, "SELECT position FROM journal_head")
    await relay.published(head["position"])


async def send(settings: Settings, command: Command, command_id: UUID, actor: str = CONTACT) -> Any:
    async with publish.connect(settings.kafka, actor=actor, timeout_s=30) as client:
        return await client.execute(command, command_id=command_id)


async def plant(orgs: Orgs, settings: Settings, act: Acting) -> tuple[UUID, UUID]:
    """Have a canary everywhere: in changes, other outcomes, parked and accepted commands, operations, marks."""
    org_id, other, command_id = uuid4(), uuid4(), uuid4()
    created = CreateOrganization.model_validate(
        {"org_id": org_id, "name": NAME, "domain": DOMAIN, "primary_address": ADDRESS}
    )
    await send(settings, created, command_id)
    await act("alice", [CreateOrganization(org_id=other, name="Acme")])
    await send(settings, UpdateOrganization(org_id=org_id, name=NAME), uuid4())  # unchanged
    for wrong in (
        UpdateOrganization(org_id=org_id, name="Acme"),
        UpdateOrganization(org_id=org_id, domain=f"www.{DOMAIN}", expected_version=9),
    ):
        assert (await send(settings, wrong, uuid4())).code == 409
    await orgs("undo", "--by", CONTACT, "--json", ORGS_OPERATE__PLAN_TTL_S="0.01")
    await orgs("mark", "before", "--reason", f"{NAME.upper()} moves to {STREET}")
    ran = await orgs("undo", "--by", CONTACT, "--execute", "--reason", f"{NAME} wants it", "--json")
    assert ran.json["counts"] == {"undone": 1}  # it was created, and is deleted
    await execute(
        settings,
        'INSERT INTO parked (topic, partition, "offset", broker_time, key, value, headers, org_id, command_id, '
        "request_digest, reason, detail, attempts, state, recorded_at, actor, authenticated_by, ended_at) "
        "VALUES ('c', 0, 1, now(), $1, $2, $3, $4, $5, '\\x01', 'handler_raised', $6, 1, 'released', now(), $6, "
        "'publisher', now())",
        str(org_id).encode(),
        NAME.encode(),
        json.dumps([["ce_actor", "a2FyaUBrYW5hcmlmdWdsLXBvc3Q="]]),
        org_id,
        uuid4(),
        CONTACT,
    )
    await execute(
        settings,
        "INSERT INTO accepted_command (command_id, actor, org_id, accepted_at) VALUES ($1, $2, $3, now())",
        command_id,
        CONTACT,
        org_id,
    )
    return org_id, command_id


async def test_nothing_of_an_erased_organization_is_in_any_table_and_its_history_still_counts(
    orgs: Orgs, settings: Settings, act: Acting
) -> None:
    org_id, command_id = await plant(orgs, settings, act)
    before = await find_canary(settings)
    assert before.keys() == {"organization", "journal", "parked", "accepted_command", "operation", "mark"}
    positions = "SELECT position, command_id, version, event_type, outcome, code FROM journal ORDER BY position"
    rows = await fetch(settings, positions)

    plan = (await orgs("erase", str(org_id), "--json", ORGS_OPERATE__ERASE_GRACE_DAYS="0")).json
    assert (plan["items"], plan["facts"]["conflict"]) == (1, 0)
    assert plan["notes"][0].startswith("5 rows of the journal are emptied and stay, 1 of parked commands too; 1 of acc")
    assert await find_canary(settings) == before
    ran = (await orgs("run", plan["id"], "--reason", f"{NAME} asked", "--json")).json
    assert (ran["state"], ran["counts"]) == ("done", {"erased": 1})

    assert await find_canary(settings) == {}
    after = await fetch(settings, positions)
    assert after[: len(rows)] == rows
    (erased,) = after[len(rows) :]
    assert (erased["position"], erased["version"], erased["event_type"]) == (len(rows) + 1, 3, "org.erased")
    # Others, and what was said of them, are as they were.
    assert [row["name"] for row in await fetch(settings, "SELECT name FROM organization WHERE name <> ''")] == ["Acme"]
    (kept,) = await fetch(settings, "SELECT reason FROM mark")
    assert kept["reason"] == "[erased] moves to [erased]"

    # A command that comes again gets what is left of its outcome.
    again = await send(settings, UpdateOrganization(org_id=org_id, name="whatever"), command_id)
    assert (again.outcome, again.code, again.version, again.organization) == ("applied", 200, 1, None)
    for result in await read_results(settings):
        if result["org_id"] == str(org_id) and result["position"] == erased["position"]:
            assert (result["outcome"], result["organization"], result["problem"]) == ("applied", None, None)
    # The id stays taken, for good; the name and the domain are free.
    restored = await send(settings, RestoreOrganization(org_id=org_id), uuid4())
    assert (restored.code, restored.problem.type) == (410, "urn:orgs:problem:erased")
    created = await send(settings, CreateOrganization(org_id=org_id, name="Another"), uuid4())
    assert (created.code, created.problem.type) == (409, "urn:orgs:problem:already-exists")
    assert (await send(settings, UpdateOrganization(org_id=org_id, name="Another"), uuid4())).code == 404
    assert (await send(settings, CreateOrganization(org_id=uuid4(), name=NAME, domain=DOMAIN), uuid4())).code == 200


async def test_subscribers_get_an_event_without_personal_data_and_the_state_a_tombstone(settings: Settings) -> None:
    async with relaying(settings) as relay:
        org_ids = await add_deleted(settings, 1)
        await published(relay, settings)
        assert (await purge(settings)).counts == {"erased": 1}
        await published(relay, settings)
    found = await seen(settings)
    event, result, state = (
        next(each for each in records if each.header("ce_position") == "3")
        for records in (found.events, found.results, found.state)
    )
    body = json.loads(event.value or b"")
    assert (body["before"], body["after"], body["changed"], body["actor"]) == (None, None, [], None)
    assert (body["org_id"], body["version"], event.header("ce_type")) == (str(org_ids[0]), 3, "org.erased")
    assert (state.value, state.header("ce_orgversion")) == (None, "3")
    assert json.loads(result.value or b"")["organization"] is None


async def test_an_erasure_that_was_killed_ends_as_one_that_was_not(settings: Settings) -> None:
    async with relaying(settings) as relay:
        for point, time in KILLED_AT:
            await execute(settings, "TRUNCATE organization")
            await execute(settings, "DELETE FROM journal")
            org_ids = await add_deleted(settings, 30)
            await published(relay, settings)
            operation = await planned(settings)
            await runs.set_rate(settings, operation.id, 10)
            done = await run_killed_at(settings, operation.id, point, time)
            assert (done.state, done.counts) == (OperationState.DONE, {"erased": 30})
            assert await histories(settings, org_ids) == [ERASED] * 30
            assert await find_canary(settings) == {}


async def test_only_what_was_deleted_long_enough_ago_is_erased(settings: Settings, orgs: Orgs) -> None:
    lately = datetime.now(UTC) - timedelta(days=29)
    org_ids = await add_deleted(settings, 2, deleted_at=lately)
    await execute(settings, "UPDATE organization SET deleted_at = NULL, name_key = 'k' WHERE id = $1", org_ids[1])
    assert (await planned(settings)).items == 0
    refused = await orgs("erase", str(org_ids[0]), code=1)
    assert "its grace lasts until" in refused.stderr
    refused = await orgs("erase", str(org_ids[1]), code=1)
    assert "is not deleted: delete it first" in refused.stderr
    refused = await orgs("erase", str(uuid4()), code=1)
    assert "no organization has" in refused.stderr
    for before_grace in (True, False):
        with pytest.raises(PreconditionError, match="is not deleted"):
            await Erase.make(at_once(settings), str(org_ids[1]), before_grace=before_grace)


async def test_before_grace_a_second_person_approves_whatever_the_number(settings: Settings, orgs: Orgs) -> None:
    async with relaying(settings) as relay:
        (org_id,) = await add_deleted(settings, 1, deleted_at=datetime.now(UTC))
        await published(relay, settings)
        plan = (await orgs("erase", str(org_id), "--before-grace", "--actor", "alice", "--json")).json
        refused = await orgs("run", plan["id"], "--reason", "a court", code=1)
        assert "needs the approval of a second person" in refused.stderr
        refused = await orgs("approve", plan["id"], "--actor", "alice", code=1)
        assert "somebody else has to approve" in refused.stderr
        await orgs("approve", plan["id"], "--actor", "bob")
        ran = (await orgs("run", plan["id"], "--reason", "a court", "--json")).json
        assert ran["counts"] == {"erased": 1}
        refused = await orgs("erase", str(org_id), "--before-grace", code=1)
        assert "is erased already" in refused.stderr


async def test_the_role_operate_leaves_it_alone_until_it_is_approved(settings: Settings) -> None:
    (org_id,) = await add_deleted(settings, 1)
    operation = await planned(settings, org_id, before_grace=True)
    with pytest.raises(NotRunnableError, match="can't be undone"):
        await runs.detach(settings, operation.id, "x")
    await execute(settings, "UPDATE operation SET detached = true")
    assert await left_to_the_role(settings) is None
    await runs.approve(settings, operation.id, "carol")
    assert await left_to_the_role(settings) == operation.id


async def left_to_the_role(settings: Settings) -> UUID | None:
    async with open_database(settings) as database, database.connect() as conn:
        return await operations.find_detached(conn, settings.operate.approval_above)


async def test_what_is_parked_is_decided_first(settings: Settings) -> None:
    async with relaying(settings) as relay:
        org_ids = await add_deleted(settings, 3)
        await published(relay, settings)
        park = (
            'INSERT INTO parked (topic, partition, "offset", broker_time, key, headers, org_id, command_id, '
            "request_digest, reason, detail, attempts, state, recorded_at) "
            "VALUES ('c', 0, $1, now(), $2, '[]', $3, $4, '\\x01', 'unreadable', '', 1, 'open', now())"
        )
        await execute(settings, park, 1, None, org_ids[0], uuid4())
        await execute(settings, park, 2, str(org_ids[1]).encode(), None, None)
        operation = await planned(settings)
        assert (operation.items, operation.facts["conflict"]) == (1, 2)
        await execute(settings, "UPDATE parked SET state = 'discarded' WHERE org_id IS NOT NULL")
        with pytest.raises(PlanMovedError, match="items: 1 when it was planned, 2 now"):
            await runs.run(settings, operation.id)
        assert (await purge(settings)).counts == {"erased": 2}
        assert await histories(settings, org_ids) == [ERASED, ERASED[:2], ERASED]


async def test_what_was_restored_meanwhile_stays(settings: Settings, database: asyncpg.Connection) -> None:
    async with relaying(settings) as relay:
        org_ids = await add_deleted(settings, 3)
        await published(relay, settings)
        operation = await planned(settings)

        async def restore() -> None:
            await database.execute(
                "UPDATE organization SET deleted_at = NULL, name_key = 'k', version = 3 WHERE id = $1", org_ids[1]
            )

        await runs.set_rate(settings, operation.id, 1.9)  # so that each is a step
        with probing("operate.after_commit", once(restore)):
            done = await runs.run(settings, operation.id)
    assert done.counts == {"erased": 2, "conflict": 1}
    assert await histories(settings, org_ids) == [ERASED, ERASED[:2], ERASED]


async def test_what_the_relay_has_not_published_is_not_emptied_before(settings: Settings) -> None:
    org_ids = await add_deleted(settings, 3)
    operation = await planned(settings)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(runs.run(settings, operation.id), 3)
    assert (await runs.find(settings, operation.id)).state == OperationState.PAUSED
    async with relaying(settings):
        assert (await runs.run(settings, operation.id)).counts == {"erased": 3}
    found = await seen(settings)
    bodies = [json.loads(each.value or b"") for each in found.events]
    assert all(body["before"] or body["after"] for body in bodies if body["version"] < 3)
    assert len(bodies) == 9
    assert await histories(settings, org_ids) == [ERASED] * 3


async def test_no_program_can_restore_an_empty_organization(settings: Settings) -> None:
    async with relaying(settings) as relay:
        await add_deleted(settings, 1)
        await published(relay, settings)
        await purge(settings)
    with pytest.raises(asyncpg.CheckViolationError, match="organization_erased_check"):
        await execute(settings, "UPDATE organization SET deleted_at = NULL, name_key = ''")


async def test_a_replay_sends_what_is_left_and_says_what_is_not(settings: Settings, orgs: Orgs) -> None:
    async with relaying(settings) as relay:
        org_ids = await add_deleted(settings, 2)
        await published(relay, settings)
        await execute(settings, "UPDATE organization SET deleted_at = now() WHERE id = $1", org_ids[1])
        await purge(settings)
        await published(relay, settings)
    plan = (await orgs("replay", "events", "--json")).json
    assert plan["items"] == 3
    assert any(note.startswith("2 changes are left out") for note in plan["notes"])
    ran = (await orgs("run", plan["id"], "--reason", "x", "--json")).json
    again = await read_topic(settings, ran["facts"]["topic"])
    types = sorted(str(dict(each.headers() or [])["ce_type"]) for each in again)
    assert types == ["b'org.created'", "b'org.deleted'", "b'org.erased'"]
    undone = (await orgs("undo", "--org", str(org_ids[0]), "--json")).json
    assert (undone["items"], undone["facts"]["conflict"]) == (0, 1)


async def test_commands_go_on_while_many_are_erased(settings: Settings, act: Acting) -> None:
    await add_deleted(settings, 400)
    operation = await planned(settings)
    erasing = asyncio.create_task(runs.run(settings, operation.id))
    others = [org(number) for number in range(1_000, 1_200)]
    await act("alice", [CreateOrganization(org_id=each, name=f"Acme {each}") for each in others])
    await act("alice", [DeleteOrganization(org_id=each) for each in others])
    assert (await erasing).counts == {"erased": 400}
    (gaps,) = await fetch(settings, "SELECT max(position) - count(*) AS gaps FROM journal")
    assert gaps["gaps"] == 0
