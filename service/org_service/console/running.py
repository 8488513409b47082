"""Runs: what was planned and run, by whom and why; approved, begun, paused, cancelled, and watched."""

from typing import Any, Final, cast
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from org_service.console.pages import page
from org_service.console.requests import ROOT, Rejected, form_of, read_id, visitor_of
from org_service.console.site import Site
from org_service.domain.reasons import ConsoleAct, OperationState
from org_service.operate import runs, words
from org_service.store import console, operations
from org_service.store.operations import Operation

PATH: Final = f"{ROOT}/runs"
_RUNS: Final = 50
_ACTS: Final = 50
_RESUMABLE: Final = ("paused", "abandoned")
_OPEN: Final = ("planned", "running", "paused", "abandoned")
_LEFT: Final = ("planned", "abandoned")
"""States in which a process of the role `operate` takes what is left to it."""
WATCH_S: Final = 1


def make_router(site: Site) -> APIRouter:
    """The list, a run, and what can be done to it."""
    routes = APIRouter()

    @routes.get(PATH)
    async def list_runs(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - by its decorator
        async with site.database.connect() as conn:
            found = await operations.list_latest(conn, _RUNS)
        return page(request, "runs", {"runs": [(each, words.operation_state(each)) for each in found], "most": _RUNS})

    @routes.get(f"{PATH}/{{operation_id}}")
    async def run(request: Request, operation_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        return page(request, "run", await _describe(site, request, read_id(operation_id, "run")))

    @routes.get(f"{PATH}/{{operation_id}}/progress")
    async def progress(request: Request, operation_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        return page(request, "run_part", await _describe(site, request, read_id(operation_id, "run")))

    @routes.post(f"{PATH}/{{operation_id}}/{{act}}")
    async def change(request: Request, operation_id: str, act: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = read_id(operation_id, "run")
        await _do(site, request, found, act)
        return RedirectResponse(f"{PATH}/{found}", 303)

    return routes


async def _do(site: Site, request: Request, operation_id: UUID, act: str) -> None:
    """Change a run; kept with the name of who does it, before it is done."""
    visitor = visitor_of(request)
    reason = form_of(request).get("reason", "").strip() or None
    match act:
        case "approve":
            await site.note(visitor, ConsoleAct.APPROVED, operation_id)
            await runs.approve(site.settings, operation_id, visitor.user_id)
        case "run":
            await site.note(visitor, ConsoleAct.RUN, operation_id)
            await runs.detach(site.settings, operation_id, reason)
        case "pause":
            await site.note(visitor, ConsoleAct.PAUSED, operation_id)
            await runs.ask(site.settings, operation_id, OperationState.PAUSED)
        case "cancel":
            await site.note(visitor, ConsoleAct.CANCELLED, operation_id)
            await runs.ask(site.settings, operation_id, OperationState.CANCELLED)
        case _:
            raise Rejected(404, "Not here", "There is no such page.")


async def _describe(site: Site, request: Request, operation_id: UUID) -> dict[str, Any]:
    async with site.database.connect() as conn:
        found = await operations.find(conn, operation_id)
        acts = await console.list_acts(conn, operation_id, _ACTS)
    if found is None:
        raise Rejected(404, "No such run", "Nobody planned this.")
    state, needs = words.operation_state(found), runs.needs_approval(found, site.settings)
    planned, waits = state == "planned", found.detached and state in _LEFT and not needs
    return {
        "run": found,
        "state": "waiting" if waits else state,
        "acts": acts,
        "waits": waits,
        "live": waits or state == "running",
        "watch_s": WATCH_S,
        "needs_approval": planned and needs,
        "own": found.requested_by == visitor_of(request).user_id,
        "runnable": bool(found.items) and not waits and ((planned and not needs) or state in _RESUMABLE),
        "resumes": not planned,
        "pausable": state == "running",
        "cancellable": state in _OPEN,
        "failures": _failures(found),
    }


def _failures(found: Operation) -> list[dict[str, Any]]:
    """Items that were not done, as the tool noted them."""
    progress = cast("dict[str, Any]", found.progress) if isinstance(found.progress, dict) else {}
    return progress.get("failed", [])
