"""Runs whose process is killed by SIGKILL in the middle, and continued by another one, end as if it had not been."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from org_events.commands import CreateOrganization, UpdateOrganization
from org_service.domain.reasons import OperationState
from org_service.operate import runs
from org_service.operate.apply_file import ApplyFile
from org_service.operate.changes import Selection
from org_service.operate.operation import Tool
from org_service.operate.undo import Undo
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support.database import fetch
from tests.support.killing import until_abandoned
from tests.support.operating import Acting
from tests.support.processes import ServiceProcess, environment
from tests.support.relaying import org
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORGS = 300
RATE = ORGS / 6
"""So that a run takes some seconds, in steps of a second."""


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """A lease that is over soon after its process is gone."""
    return settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})


@pytest.fixture
async def operating(impatient: Settings, tmp_path: Path) -> AsyncIterator[ServiceProcess]:
    """A process of the role operate, not started yet."""
    process = ServiceProcess("operate", impatient, tmp_path)
    yield process
    process.close()


async def kept(settings: Settings, tool: Tool) -> UUID:
    planned, _ = await runs.keep_plan(settings, tool, requested_by="bob", reason="a test", rate_per_second_max=RATE)
    return planned.id


async def begin(settings: Settings, operation_id: UUID) -> asyncio.subprocess.Process:
    command = (sys.executable, "-m", "org_service.cli", "run", str(operation_id))
    nowhere = asyncio.subprocess.DEVNULL
    return await asyncio.create_subprocess_exec(*command, env=environment(settings), stdout=nowhere, stderr=nowhere)


async def until_in_the_middle(settings: Settings, operation_id: UUID) -> None:
    async def is_in_the_middle() -> bool:
        return 0 < (await runs.find(settings, operation_id)).done < ORGS

    await until(is_in_the_middle, timeout_s=60)


async def until_free_to_finish(settings: Settings, operation_id: UUID) -> None:
    """Anybody may continue it, as fast as can be."""
    await until_abandoned(settings, operation_id)
    await runs.set_rate(settings, operation_id, None)


async def kill_in_the_middle(settings: Settings, operation_id: UUID) -> None:
    """Begin a run as `orgs run`, and kill it."""
    process = await begin(settings, operation_id)
    await until_in_the_middle(settings, operation_id)
    process.kill()
    await process.wait()
    await until_free_to_finish(settings, operation_id)


async def done(settings: Settings, operation_id: UUID) -> Operation:
    async def state() -> OperationState:
        return (await runs.find(settings, operation_id)).state

    await until(state, OperationState.DONE, timeout_s=60)
    return await runs.find(settings, operation_id)


async def undo_of_renames(settings: Settings, act: Acting) -> UUID:
    await act("alice", (CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(ORGS)))
    await act("mallory", (UpdateOrganization(org_id=org(n), name=f"Wrong {n}") for n in range(ORGS)))
    return await kept(settings, await Undo.make(settings, Selection(actors=("mallory",))))


async def see_undone(settings: Settings, ended: Operation) -> None:
    assert ended.counts == {"undone": ORGS}
    rows = await fetch(settings, "SELECT name, version FROM organization")
    assert {tuple(row) for row in rows} == {(f"Acme {n}", 3) for n in range(ORGS)}


async def test_an_undo_is_continued_by_orgs_run(impatient: Settings, act: Acting) -> None:
    operation_id = await undo_of_renames(impatient, act)
    await kill_in_the_middle(impatient, operation_id)
    assert await (await begin(impatient, operation_id)).wait() == 0
    await see_undone(impatient, await runs.find(impatient, operation_id))


async def test_an_undo_is_continued_by_the_role_operate_also_where_that_is_killed(
    impatient: Settings, act: Acting, operating: ServiceProcess
) -> None:
    operation_id = await undo_of_renames(impatient, act)
    await runs.detach(impatient, operation_id, None)
    operating.start()
    await until_in_the_middle(impatient, operation_id)
    operating.kill()
    await until_free_to_finish(impatient, operation_id)
    operating.start()
    await see_undone(impatient, await done(impatient, operation_id))


async def test_what_orgs_run_left_behind_is_handed_to_the_role_operate(
    impatient: Settings, act: Acting, operating: ServiceProcess
) -> None:
    operation_id = await undo_of_renames(impatient, act)
    await kill_in_the_middle(impatient, operation_id)
    await runs.detach(impatient, operation_id, None)
    operating.start()
    await see_undone(impatient, await done(impatient, operation_id))


async def test_an_apply_is_continued_by_orgs_run(impatient: Settings, act: Acting, tmp_path: Path) -> None:
    half = ORGS // 2
    await act("alice", (CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(half)))
    file = tmp_path / "organizations.jsonl"
    write(file, [{"id": str(org(n)), "name": f"Acme {n}", "domain": f"d{n}.example"} for n in range(ORGS)])
    operation_id = await kept(impatient, await ApplyFile.make(impatient, file, "jsonl"))
    await kill_in_the_middle(impatient, operation_id)
    assert await (await begin(impatient, operation_id)).wait() == 0
    assert (await runs.find(impatient, operation_id)).counts == {"updated": half, "created": half}
    rows = await fetch(impatient, "SELECT name, domain, version FROM organization")
    assert {tuple(row) for row in rows} == {(f"Acme {n}", f"d{n}.example", 2 if n < half else 1) for n in range(ORGS)}


def write(file: Path, lines: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
