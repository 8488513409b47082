r"""Plans kept, run, paused, resumed and cancelled: the one way to do long work (guarantee 9).

    planned --> running <--> paused         a plan expires after `plan_ttl_s`
       |           |  \-----> done, failed
       +--> cancelled <-------- from any of the three

A run belongs to whoever has its lease. When that process dies the lease lapses, and anybody may resume the run from
the step after the last one that was noted. An outage is waited out; what a tool can't get over ends the run as failed.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Literal
from uuid import UUID

from org_events.ids import uuid7
from org_service import probes
from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError, ServiceError
from org_service.operate.operation import (
    Execution,
    Interrupted,
    LeaseLostError,
    LocalTool,
    NotRunnableError,
    Plan,
    PlanMovedError,
    Tool,
    as_json,
    judge,
    open_database,
)
from org_service.operate.tools import make_tool
from org_service.probes import probe
from org_service.settings import Settings
from org_service.store import operations
from org_service.store.database import Database, DatabaseConnection
from org_service.store.operations import NEEDS_APPROVAL, Lease, NewOperation, Operation
from org_service.telemetry.logs import get_logger
from org_service.waiting import Patience

log = get_logger(__name__)

_PAUSE_TIMEOUT_S: Final = 3.0
"""For noting that ^C paused a run; where Postgres is away the lease lapses by itself."""

OnProgress = Callable[[Execution], None]
"""Told after each step."""


async def keep_plan(
    settings: Settings,
    tool: Tool,
    *,
    requested_by: str,
    reason: str = "",
    rate_per_second_max: float | None = None,
    operation_id: UUID | None = None,
) -> tuple[Operation, Plan]:
    """Plan, and keep the plan to be run; nothing else is changed.

    Args:
        settings: Of the servers.
        tool: What to do.
        requested_by: Who asks.
        reason: Why.
        rate_per_second_max: Items a second.
        operation_id: Of the plan, for whoever may ask twice: the first plan that has it is kept, and returned.

    Raises:
        PreconditionError: The tool has nothing to do, or can't do it; nothing is kept.
    """
    plan = await tool.plan()
    new = NewOperation(
        id=operation_id or uuid7(),
        kind=tool.kind,
        parameters=tool.parameters,
        resource=tool.resource,
        items=plan.items,
        digest=plan.digest,
        facts=plan.facts,
        sample=plan.sample,
        notes=plan.notes,
        reason=reason,
        requested_by=requested_by,
        rate_per_second_max=rate_per_second_max,
    )
    async with open_database(settings) as database, database.begin() as conn:
        await operations.add(conn, new, settings.operate.plan_ttl_s)
        kept = await operations.find(conn, new.id)
    assert kept is not None
    return kept, plan


async def find(settings: Settings, operation_id: UUID) -> Operation:
    """Read an operation.

    Raises:
        PreconditionError: There is none with this id.
    """
    async with open_database(settings, "reader") as database, database.connect() as conn:
        found = await operations.find(conn, operation_id)
    if found is None:
        raise PreconditionError(f"there is no operation {operation_id}; `orgs runs` lists them.")
    return found


async def list_latest(settings: Settings, limit: int) -> list[Operation]:
    """The latest operations, latest first."""
    async with open_database(settings, "reader") as database, database.connect() as conn:
        return await operations.list_latest(conn, limit)


async def approve(settings: Settings, operation_id: UUID, approved_by: str) -> Operation:
    """Approve a plan, as a second person.

    Raises:
        NotRunnableError: It is no plan any more, or the one who asked for it wants to approve it.
    """
    operation = await find(settings, operation_id)
    if operation.requested_by == approved_by:
        raise NotRunnableError(f"{approved_by} asked for this plan: somebody else has to approve it.")
    why_not = _why_not(operation, approving=True)
    return await _change(
        settings, operation_id, lambda conn: operations.approve(conn, operation_id, approved_by), why_not
    )


async def ask(settings: Settings, operation_id: UUID, wish: OperationState) -> Operation:
    """Pause or cancel an operation: at once where nobody runs it, else after the step in flight.

    Raises:
        NotRunnableError: It is over, or not begun and can't be paused.
    """
    operation = await find(settings, operation_id)
    why_not = f"the operation is {operation.state} and can't become {wish}."
    return await _change(settings, operation_id, lambda conn: operations.ask(conn, operation_id, wish), why_not)


async def set_rate(settings: Settings, operation_id: UUID, rate_per_second_max: float | None) -> Operation:
    """Bound the rate of an operation, whoever runs it; within a second.

    Raises:
        NotRunnableError: It is over.
    """
    operation = await find(settings, operation_id)
    rate = rate_per_second_max
    why_not = f"the operation is {operation.state}: it has no rate any more."
    return await _change(settings, operation_id, lambda conn: operations.set_rate(conn, operation_id, rate), why_not)


async def detach(settings: Settings, operation_id: UUID, reason: str | None) -> Operation:
    """Leave an operation to a process of the role `operate`.

    Raises:
        NotRunnableError: It can't be run.
    """
    operation = await find(settings, operation_id)
    _see_runnable(operation, settings, reason)
    if isinstance(make_tool(settings, operation.kind, operation.parameters), LocalTool):
        raise NotRunnableError(
            f"it works with a file of one machine, which other processes may not have: run it there, with "
            f"`orgs run {operation_id}`."
        )
    why_not = _why_not(operation)
    return await _change(settings, operation_id, lambda conn: operations.detach(conn, operation_id, reason), why_not)


async def _change(
    settings: Settings, operation_id: UUID, change: Callable[[DatabaseConnection], Awaitable[bool]], why_not: str
) -> Operation:
    """Change an operation, and read it as it is then.

    Raises:
        NotRunnableError: It can't be changed so, and `why_not` says why.
    """
    async with open_database(settings) as database, database.begin() as conn:
        if not await change(conn):
            raise NotRunnableError(why_not)
        changed = await operations.find(conn, operation_id)
    assert changed is not None
    return changed


async def run(
    settings: Settings,
    operation_id: UUID,
    *,
    reason: str | None = None,
    on_progress: OnProgress | None = None,
    on_cancel: Literal["pause", "release"] = "pause",
) -> Operation:
    """Run a plan, or continue a run from where it is. Returns when it is done, paused, cancelled or failed.

    May be called by several at once: one runs it.

    Args:
        settings: Of the servers that it works on.
        operation_id: Which.
        reason: Why, where the plan doesn't say.
        on_progress: Told after each step.
        on_cancel: What becomes of the run where this is cancelled: it is paused, or left to any other process.

    Raises:
        NotRunnableError: It can't be run now; nothing was done.
        PlanMovedError: What it stands on is something else by now; nothing was done, and the plan is of no use.
        LeaseLostError: Another process took it over in the middle, or it was cancelled.
    """
    operation = await find(settings, operation_id)
    _see_runnable(operation, settings, reason)
    tool = make_tool(settings, operation.kind, operation.parameters)
    if isinstance(tool, LocalTool):
        await tool.see_here()
    if operation.state == OperationState.PLANNED:
        # guarantee 9: a run does exactly what was planned, or nothing.
        _see_unmoved(operation, await tool.plan())
    runner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    lease = Lease(operation_id, runner, settings.operate.lease_s)
    async with open_database(settings) as database:
        async with database.begin() as conn:
            if not await operations.take(conn, lease, reason):
                raise NotRunnableError(await _why_not_taken(settings, operation))
            taken = await operations.find(conn, operation_id)
        assert taken is not None
        if probes.listeners:
            await probe("operate.after_take")
        execution = Execution(taken, database, lease, on_progress=on_progress)
        ending = _Ending(database, lease)
        patience = Patience(
            "the run waits",
            settings.operate.retry_waits_s,
            log=log,
            judge=judge,
        )
        keeping = asyncio.create_task(_keep_lease(execution, patience))
        try:
            await _carry_out(tool, execution, patience, ending, on_cancel)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
    return await find(settings, operation_id)


async def _carry_out(
    tool: Tool, execution: Execution, patience: Patience, ending: "_Ending", on_cancel: Literal["pause", "release"]
) -> None:
    try:
        async for attempt in patience:
            with attempt:
                await tool.run(execution)
                await ending.note(OperationState.DONE)
    except Interrupted as asked:
        await ending.note(asked.state)
    except LeaseLostError:
        raise
    except ServiceError as error:
        await ending.note(OperationState.FAILED, str(error))
    except asyncio.CancelledError:
        leaving = ending.note(OperationState.PAUSED) if on_cancel == "pause" else ending.release()
        try:
            await asyncio.wait_for(asyncio.shield(leaving), _PAUSE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - said, and whoever waits for the end isn't kept waiting
            log.warning("the run could not be left in good order; its lease lapses", why=type(error).__name__)
        raise
    except Exception as error:
        await ending.note(OperationState.FAILED, type(error).__name__)
        raise


class _Ending:
    """Notes how a run ended."""

    def __init__(self, database: Database, lease: Lease) -> None:
        self._database = database
        self._lease = lease

    async def note(self, state: OperationState, error: str | None = None) -> None:
        """Note it.

        Raises:
            LeaseLostError: The run is another process's by now.
        """
        async with self._database.begin() as conn:
            if not await operations.end(conn, self._lease, state, error):
                raise LeaseLostError(
                    f"another process has the run {self._lease.operation_id} by now (or cancelled it)."
                )

    async def release(self) -> None:
        """Leave the run to any other process."""
        async with self._database.begin() as conn:
            await operations.release(conn, self._lease)


async def _keep_lease(execution: Execution, patience: Patience) -> None:
    async for attempt in patience:
        with attempt:
            await execution.keep_lease()


def needs_approval(operation: Operation, settings: Settings) -> bool:
    """Whether a second person has to approve a plan before it is run."""
    many = operation.items > settings.operate.approval_above
    return (many or bool(operation.parameters.get(NEEDS_APPROVAL))) and operation.approved_by is None


def _see_runnable(operation: Operation, settings: Settings, reason: str | None) -> None:
    runnable = operation.state in (OperationState.PLANNED, OperationState.PAUSED) or operation.abandoned
    if not runnable or operation.expired:
        raise NotRunnableError(_why_not(operation))
    if operation.state == OperationState.PLANNED and needs_approval(operation, settings):
        raise NotRunnableError(
            f"a plan of {operation.items:,} items needs the approval of a second person, who runs "
            f"`orgs approve {operation.id}`: "
            + (
                "what it does can't be undone."
                if operation.parameters.get(NEEDS_APPROVAL)
                else f"ORGS_OPERATE__APPROVAL_ABOVE is {settings.operate.approval_above:,}."
            )
        )
    if not (reason or operation.reason).strip():
        raise NotRunnableError("say why, with --reason: it is kept with the run.")


def _why_not(operation: Operation, *, approving: bool = False) -> str:
    if operation.expired:
        return f"the plan expired at {operation.expires_at:%H:%M:%S}Z: plan again."
    if operation.state == OperationState.RUNNING and not approving:
        return f"it is running, in process {operation.runner}; `orgs runs show {operation.id} --watch` shows how far."
    return f"the operation is {operation.state}."


async def _why_not_taken(settings: Settings, operation: Operation) -> str:
    """Why the lease could not be had: whatever won the race, or stands in the way."""
    async with open_database(settings, "reader") as database, database.connect() as conn:
        now = await operations.find(conn, operation.id)
        other = await operations.find_under_way(conn, operation.resource)
    if other is not None and other != operation.id:
        return (
            f"another operation on {operation.resource} is under way: {other}. Wait for it (`orgs runs show {other} "
            f"--watch`), or resume or cancel it (`orgs runs resume {other}`, `orgs runs cancel {other}`)."
        )
    assert now is not None
    return _why_not(now)


def _see_unmoved(operation: Operation, fresh: Plan) -> None:
    """See that a plan still is what it was.

    Raises:
        PlanMovedError: It isn't; the message has the difference.
    """
    was, now = operation.facts, as_json(fresh.facts)
    moved = [
        f"{name}: {was.get(name)!r} when it was planned, {now.get(name)!r} now"
        for name in sorted({*was, *now})
        if was.get(name) != now.get(name)
    ]
    if operation.items != fresh.items:
        moved.insert(0, f"items: {operation.items:,} when it was planned, {fresh.items:,} now")
    elif operation.digest != fresh.digest:
        moved.insert(0, f"the {fresh.items:,} items are others than when it was planned")
    if moved:
        raise PlanMovedError(
            "nothing was done, because what the plan stands on has changed:\n  " + "\n  ".join(moved) + "\nPlan again."
        )
