"""Runs that are killed, and continued by another process."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from org_service.domain.reasons import OperationState
from org_service.operate import runs
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support.probing import Killed, probing
from tests.support.processes import environment
from tests.support.waiting import until


def kill_at(time: int) -> Callable[..., Awaitable[None]]:
    """A listener that kills at the given passage of a point, counted from 1."""
    passed = 0

    async def listener(*_: object) -> None:
        nonlocal passed
        passed += 1
        if passed == time:
            raise Killed

    return listener


async def until_abandoned(settings: Settings, operation_id: UUID) -> None:
    """Wait until the lease of a killed run is over, and anybody may continue it."""

    async def is_abandoned() -> bool:
        return (await runs.find(settings, operation_id)).abandoned

    await until(is_abandoned)


async def run_process_killed_at(settings: Settings, operation_id: UUID, point: Point) -> None:
    """Run a plan in a process that dies by SIGKILL at a point, and wait until anybody may continue it."""
    module = "tests.support.killed_orgs"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, point, "run", str(operation_id), env=environment(settings), stderr=PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    await until_abandoned(settings, operation_id)


async def run_killed_at(settings: Settings, operation_id: UUID, point: Point, time: int) -> Operation:
    """Run a plan, kill it at a point, and continue it from elsewhere once its lease is over."""
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    with probing(point, kill_at(time)), pytest.raises(Killed):
        await runs.run(impatient, operation_id)
    assert (await runs.find(impatient, operation_id)).state == OperationState.RUNNING
    await until_abandoned(impatient, operation_id)
    return await runs.run(impatient, operation_id)
