"""Plans and runs, from the command line: who may run what, what stops a run, and who continues it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from org_service.domain.reasons import OperationState
from org_service.operate import runs
from org_service.operate.operation import LeaseLostError
from org_service.operate.operator import Operator
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support.database import execute
from tests.support.operating import Orgs
from tests.support.probing import probing
from tests.support.processes import environment
from tests.support.relaying import changes, journal
from tests.support.waiting import until

pytestmark = pytest.mark.integration

EVENTS = 300
SLOWLY = ("--rate-per-second-max", "100")


@pytest.fixture(autouse=True)
async def events(settings: Settings) -> None:
    await journal(settings, changes(EVENTS))


async def plan(orgs: Orgs, *options: str) -> str:
    return (await orgs("replay", "events", "--reason", "a test", "--json", *options)).json["id"]


async def state_of(settings: Settings, operation_id: str) -> Operation:
    return await runs.find(settings, UUID(operation_id))


async def until_it_is(settings: Settings, operation_id: str, state: OperationState) -> Operation:
    async def now() -> OperationState:
        return (await state_of(settings, operation_id)).state

    await until(now, state)
    return await state_of(settings, operation_id)


async def has_begun(settings: Settings, operation_id: str) -> bool:
    return (await state_of(settings, operation_id)).done > 0


@asynccontextmanager
async def operating(settings: Settings) -> AsyncIterator[Operator]:
    operator, stop = Operator(settings), asyncio.Event()
    task = asyncio.create_task(operator.run(stop))
    try:
        yield operator
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def test_a_plan_says_what_would_be_done_and_does_nothing(orgs: Orgs, settings: Settings) -> None:
    said = await orgs("replay", "events", "--to-position", "30", "--actor", "alice")
    assert "30 items" in said.stdout
    assert "by alice" in said.stdout
    assert "… and 10 more" in said.stdout
    assert "nothing was changed" in said.stderr
    (listed,) = (await orgs("runs", "--json")).json_lines
    assert (listed["state"], listed["items"], listed["requested_by"]) == ("planned", 30, "alice")
    refused = await orgs("run", listed["id"], code=1)
    assert "say why, with --reason" in refused.stderr
    ran = (await orgs("run", listed["id"], "--reason", "lost by billing", "--json")).json
    assert (ran["state"], ran["counts"], ran["reason"]) == ("done", {"sent": 30}, "lost by billing")
    again = await orgs("run", listed["id"], code=1)
    assert "the operation is done" in again.stderr
    assert "lost by billing" in (await orgs("runs")).stdout


async def test_a_run_needs_a_reason_before_it_begins(orgs: Orgs) -> None:
    refused = await orgs("replay", "events", "--execute", code=1)
    assert "say why, with --reason" in refused.stderr


async def test_a_plan_without_a_reason_can_be_cancelled(orgs: Orgs) -> None:
    planned = (await orgs("replay", "events", "--json")).json["id"]
    cancelled = (await orgs("runs", "cancel", planned, "--json")).json
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "not wanted: cancelled before it ran")
    assert "the operation is cancelled" in (await orgs("run", planned, "--reason", "late", code=1)).stderr


async def test_a_plan_expires(orgs: Orgs) -> None:
    planned = (await orgs("replay", "events", "--json", ORGS_OPERATE__PLAN_TTL_S="0.01")).json["id"]
    refused = await orgs("run", planned, "--reason", "late", code=1)
    assert "the plan expired" in refused.stderr
    (listed,) = (await orgs("runs", "list", "--json")).json_lines
    assert listed["state"] == "expired"


async def test_a_large_plan_needs_a_second_person(orgs: Orgs) -> None:
    few = str(EVENTS - 1)
    planned = await plan(orgs, "--actor", "alice")
    refused = await orgs("run", planned, code=1, ORGS_OPERATE__APPROVAL_ABOVE=few)
    assert f"`orgs approve {planned}`" in refused.stderr
    refused = await orgs("approve", planned, "--actor", "alice", code=1)
    assert "somebody else has to approve" in refused.stderr
    await orgs("approve", planned, "--actor", "bob")
    await orgs("approve", planned, "--actor", "carol")  # the first counts
    ran = (await orgs("run", planned, "--json", ORGS_OPERATE__APPROVAL_ABOVE=few)).json
    assert (ran["state"], ran["approved_by"]) == ("done", "bob")


async def test_of_two_who_start_one_plan_one_runs_it(orgs: Orgs, settings: Settings) -> None:
    planned = UUID(await plan(orgs))
    outcomes = await asyncio.gather(*(runs.run(settings, planned) for _ in range(2)), return_exceptions=True)
    ran = [each for each in outcomes if isinstance(each, Operation)]
    refused = [each for each in outcomes if isinstance(each, runs.NotRunnableError)]
    assert ([each.counts for each in ran], len(refused)) == ([{"sent": EVENTS}], 1)


async def test_one_operation_on_a_resource_is_under_way_at_a_time(orgs: Orgs, settings: Settings) -> None:
    topic = f"{settings.kafka.topic_prefix}again"
    first, second = await plan(orgs, *SLOWLY), await plan(orgs)
    in_place = [await plan(orgs, "--in-place", "--rate-per-second-max", rate) for rate in ("20", "100")]
    grow = (await orgs("topics", "grow", "--partitions", "6", "--reason", "a test", "--json")).json["id"]
    running = asyncio.create_task(runs.run(settings, UUID(in_place[0])))
    await until_it_is(settings, in_place[0], OperationState.RUNNING)
    refused = await orgs("run", in_place[1], code=1)
    assert f"another operation on topics is under way: {in_place[0]}" in refused.stderr
    assert f"under way: {in_place[0]}" in (await orgs("run", grow, code=1)).stderr
    assert topic not in refused.stderr
    await orgs("run", second)  # on another resource
    await orgs("runs", "cancel", in_place[0])
    assert (await running).state == OperationState.CANCELLED
    await orgs("runs", "cancel", first)
    await orgs("run", in_place[1])


async def test_a_run_is_paused_and_resumed_from_elsewhere(orgs: Orgs, settings: Settings) -> None:
    planned = await plan(orgs, *SLOWLY)
    running = asyncio.create_task(runs.run(settings, UUID(planned)))
    await until(lambda: has_begun(settings, planned))
    await orgs("runs", "pause", planned)
    paused = await running
    assert paused.state == OperationState.PAUSED
    assert 0 < paused.done < EVENTS
    await orgs("runs", "rate", planned)
    resumed = (await orgs("runs", "resume", planned, "--json")).json
    assert (resumed["state"], resumed["counts"]) == ("done", {"sent": EVENTS})


async def test_watching_a_run_without_a_terminal_says_how_far_it_is_and_ends_where_its_process_is_gone(
    orgs: Orgs, settings: Settings
) -> None:
    planned = await plan(orgs, "--rate-per-second-max", "10")
    running = asyncio.create_task(runs.run(settings, UUID(planned)))
    await until(lambda: has_begun(settings, planned))
    watching = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "org_service.cli", "runs", "show", planned, "--watch"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(settings),
    )
    assert watching.stderr is not None
    async with asyncio.timeout(60):
        assert b"replay events: running, " in await watching.stderr.readline()
        await execute(settings, "UPDATE operation SET runner = 'gone', leased_until = now()")
        assert b"abandoned" in (await watching.communicate())[0]
    with pytest.raises(LeaseLostError):
        await running


async def test_a_rate_is_in_effect_within_a_second(orgs: Orgs, settings: Settings) -> None:
    planned = await plan(orgs, "--rate-per-second-max", "1")
    running = asyncio.create_task(runs.run(settings, UUID(planned)))
    await until_it_is(settings, planned, OperationState.RUNNING)
    await orgs("runs", "rate", planned)
    done = await asyncio.wait_for(running, 10)  # of 300 seconds
    assert done.state == OperationState.DONE


async def test_cancelling_a_run_here_pauses_it(orgs: Orgs, settings: Settings) -> None:
    """As ^C does."""
    planned = await plan(orgs, *SLOWLY)
    running = asyncio.create_task(runs.run(settings, UUID(planned)))
    await until_it_is(settings, planned, OperationState.RUNNING)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await state_of(settings, planned)).state == OperationState.PAUSED


async def test_the_role_operate_runs_what_is_left_to_it_and_another_process_continues(
    orgs: Orgs, settings: Settings
) -> None:
    planned = await plan(orgs, "--detach", *SLOWLY)
    async with operating(settings) as operator:
        await until_it_is(settings, planned, OperationState.RUNNING)
        assert await operator.checks()["operations"]() == f"{planned} is running"
    left = await state_of(settings, planned)
    assert (left.state, left.abandoned) == (OperationState.RUNNING, True)
    await orgs("runs", "rate", planned)
    async with operating(settings):
        done = await until_it_is(settings, planned, OperationState.DONE)
    assert done.counts == {"sent": EVENTS}


async def test_what_cannot_begin_ends_with_its_reason_and_the_next_one_is_run(orgs: Orgs, settings: Settings) -> None:
    topic = f"{settings.kafka.topic_prefix}late"
    first = await plan(orgs)
    await orgs("run", first)
    named = (await state_of(settings, first)).facts["topic"]
    moved = await plan(orgs, "--to", named, "--detach")
    next_one = await plan(orgs, "--detach")
    await execute(settings, "DELETE FROM journal WHERE position = 9")
    async with operating(settings):
        failed = await until_it_is(settings, moved, OperationState.FAILED)
        await until_it_is(settings, next_one, OperationState.FAILED)
    assert "items: 300 when it was planned, 299 now" in (failed.error or "")
    assert topic not in (failed.error or "")


async def test_an_error_nobody_foresaw_fails_the_run_and_says_its_kind(orgs: Orgs, settings: Settings) -> None:
    async def raise_unforeseen(*_: Any) -> None:
        raise ZeroDivisionError

    planned = UUID(await plan(orgs))
    with probing("operate.before_publish", raise_unforeseen), pytest.raises(ZeroDivisionError):
        await runs.run(settings, planned)
    failed = await runs.find(settings, planned)
    assert (failed.state, failed.error) == (OperationState.FAILED, "ZeroDivisionError")
