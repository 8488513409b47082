"""What is parked is released, discarded and edited beside a worker and a relay: each outcome once, orders kept."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from org_events.commands import CreateOrganization
from org_events.publishing import OrganizationClient
from org_service.domain.reasons import OperationState
from org_service.operate import runs
from org_service.operate.parked_edit import CAUSE_HEADER, EditParked
from org_service.probes import Point
from org_service.settings import Settings
from tests.integration.operate.parking import failing_for, find_outcome, release, rows
from tests.integration.worker.publishing import send
from tests.support.database import connected
from tests.support.idle import wait_until_idle
from tests.support.killing import run_process_killed_at
from tests.support.observed import TopicReader
from tests.support.operating import Orgs, Service
from tests.support.records import record_of
from tests.support.releasing import find_disorder, live
from tests.support.verified import find_differences
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORGANIZATIONS, COMMANDS_EACH = 40, 10
"""Of the release beside a worker; `python -m tests.bench.release` has 1,000 of 10."""


async def is_balanced(settings: Settings) -> bool:
    """Whether all is published, each outcome once, and nothing is parked."""
    async with connected(settings) as database:
        if await database.fetchval("SELECT count(*) FROM parked WHERE state = 'open'"):
            return False
    await wait_until_idle(settings, 30)
    return not await find_differences(settings)


@pytest.mark.parametrize(
    "point", ["operate.before_commit", "operate.after_commit", "operate.before_publish", "operate.after_publish"]
)
async def test_an_edit_whose_process_was_killed_ends_as_if_it_had_not_been(
    service: Service, settings: Settings, database: asyncpg.Connection, point: Point
) -> None:
    settings = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    service.start("worker", "relay")
    org_id = uuid4()
    with failing_for([org_id]):
        await send(settings, record_of(CreateOrganization(org_id=org_id, name="Amce")))
        await until(lambda: database.fetchval("SELECT count(*) FROM parked"), 1)
    old_id, parked_id = await database.fetchrow("SELECT command_id, id FROM parked")  # type: ignore[misc] - there is one

    tool = await EditParked.make(settings, parked_id, {"name": "Acme"})
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    await run_process_killed_at(settings, planned.id, point)
    done = await runs.run(settings, planned.id)
    assert (done.state, done.counts) == (OperationState.DONE, {"discarded": 1})
    await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 2)
    found = await database.fetch("SELECT outcome, code, actor FROM journal ORDER BY position")
    assert [tuple(row) for row in found] == [("rejected", 500, "tester"), ("applied", 200, "alice")]
    reader = TopicReader(settings.kafka.bootstrap_servers)
    try:
        topic = settings.kafka.topics.commands
        sent = (await asyncio.to_thread(reader.read, (topic,), {}))[0][topic]
    finally:
        reader.close()
    assert {each.header(CAUSE_HEADER) for each in sent} == {None, str(old_id)}


async def test_publishers_get_the_final_outcome_and_the_accounts_balance(
    orgs: Orgs, service: Service, settings: Settings
) -> None:
    service.start("worker", "relay")
    org_id, other = uuid4(), uuid4()
    kafka = settings.kafka
    async with OrganizationClient(
        bootstrap_servers=kafka.bootstrap_servers, source="/tests", topics=kafka.topics, actor="ada", timeout_s=30
    ) as client:
        with failing_for([org_id, other]):
            parked = await client.create(org_id, name="Acme")
            assert (parked.outcome, parked.final) == ("parked", False)
            behind = await client.update(org_id, domain="acme.no")
            given_up = await client.create(other, name="Globex")
        waiting = [asyncio.create_task(client.outcome(each.command_id)) for each in (parked, behind, given_up)]
        await orgs("parked", "release", "--org", str(org_id), "--execute", "--reason", "fixed")
        final = await asyncio.gather(*waiting[:2])
        told = [(each.outcome, each.final, each.version) for each in final]
        assert told == [("applied", True, 1), ("applied", True, 2)]
        await orgs("parked", "discard", "--command", str(given_up.command_id), "--execute", "--reason", "no use")
        discarded = await waiting[2]
        assert (discarded.outcome, discarded.code, discarded.final) == ("rejected", 500, True)
        assert discarded.problem is not None
        assert discarded.problem.type == "urn:orgs:problem:discarded"
        with failing_for([org_id]):
            wrong = await client.update(org_id, name="Amce")
            replaced = asyncio.create_task(client.outcome(wrong.command_id))
        (listed,) = (await orgs("parked", "list", "--json")).json_lines[:-1]
        body = '{"name": "Acme AS"}'
        edited = (
            await orgs("parked", "edit", str(listed["id"]), "--body", body, "--execute", "--reason", "typo", "--json")
        ).json
        rejected = await replaced
        new_id = UUID(edited["sample"][0]["new_command_id"])
        assert rejected.problem is not None
        assert str(new_id) in rejected.problem.detail
        await until(lambda: find_outcome(settings, new_id))
        again = await client.update(org_id, name="Acme AS")
        assert (again.outcome, again.version) == ("unchanged", 3)
    await until(lambda: is_balanced(settings))


async def test_a_release_of_many_beside_a_worker_keeps_every_order_and_the_accounts(
    settings: Settings, database: asyncpg.Connection
) -> None:
    no_breaker = settings.worker.model_copy(update={"breaker": False})
    service = Service(settings.model_copy(update={"worker": no_breaker}))
    held, free = [uuid4() for _ in range(ORGANIZATIONS)], [uuid4() for _ in range(ORGANIZATIONS)]
    service.start("worker", "relay")
    with failing_for(held):
        await send(settings, *(live(each, turn) for turn in range(COMMANDS_EACH) for each in held))
        parked = ORGANIZATIONS * COMMANDS_EACH
        await until(lambda: database.fetchval("SELECT count(*) FROM parked"), parked, timeout_s=120)
    releasing = asyncio.create_task(release(settings))
    for turn in range(COMMANDS_EACH):
        await send(settings, *(live(each, turn + COMMANDS_EACH) for each in held), *(live(each, turn) for each in free))
    done = await releasing
    assert (done.state, set(done.counts)) == (OperationState.DONE, {"applied"})
    assert done.counts["applied"] >= parked
    await until(lambda: database.fetchval("SELECT count(*) FROM journal"), 3 * parked, timeout_s=120)
    turns = dict.fromkeys(held, 2 * COMMANDS_EACH) | dict.fromkeys(free, COMMANDS_EACH)
    assert await find_disorder(database, turns) == []
    assert {state for (state,) in await rows(database, "state")} == {"released"}
    await until(lambda: is_balanced(settings), timeout_s=60)
    await service.stop()
