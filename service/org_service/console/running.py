"""Runs: what was planned and run, by whom and why; approved, begun, paused, cancelled, and watched.

A form says in which state its page showed the run. Where that is another one by now (an old tab, a second operator, a
page gone back to), nothing is done: `Run it` of a plan must not resume what somebody paused since, nor `Cancel the
plan` stop half a run. What is so already, as after a double click, is no trouble.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final, cast
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from org_service.console import plans
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
_REACHED: Final[Mapping[str, Collection[str]]] = {
    "approve": (),
    "run": ("waiting", "running", "done"),
    "pause": ("paused",),
    "cancel": ("cancelled",),
}
"""What can be done to a run, and the states in which it is so already."""
_STATES: Final = (*OperationState, "waiting", "expired", "abandoned")
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
        shown = await _describe(site, request, read_id(operation_id, "run"))
        if request.query_params.get("shape") != shown["shape"]:
            return page(request, "run_part", shown)
        # What there is to click stays where it is, under the pointer.
        answer = page(request, "run_progress", shown)
        answer.headers["hx-retarget"] = "#progress"
        return answer

    @routes.post(f"{PATH}/{{operation_id}}/{{act}}")
    async def change(request: Request, operation_id: str, act: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        if act not in _REACHED:
            raise Rejected(404, "Not here", "There is no such page.")
        found = await _find(site, read_id(operation_id, "run"))
        address, state, seen = f"{PATH}/{found.id}", _state(site, found), form_of(request).get("seen", "")
        if state in _REACHED[act] or (act == "approve" and found.approved_by is not None):
            pass
        elif state == seen:
            await _do(site, request, found.id, act)
        else:
            address += f"?{urlencode({'was': seen})}"
        return RedirectResponse(address, 303)

    return routes


async def _find(site: Site, operation_id: UUID) -> Operation:
    async with site.database.connect() as conn:
        found = await operations.find(conn, operation_id)
    if found is None:
        raise Rejected(404, "No such run", "Nobody planned this.")
    return found


def _state(site: Site, found: Operation) -> str:
    """As the page says it: `waiting` for a process of the role `operate`, too."""
    state = words.operation_state(found)
    waits = found.detached and state in _LEFT and not runs.needs_approval(found, site.settings)
    return "waiting" if waits else state


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
        case _:
            await site.note(visitor, ConsoleAct.CANCELLED, operation_id)
            await runs.ask(site.settings, operation_id, OperationState.CANCELLED)


async def _describe(site: Site, request: Request, operation_id: UUID) -> dict[str, Any]:
    found = await _find(site, operation_id)
    async with site.database.connect() as conn:
        acts = await console.list_acts(conn, operation_id, _ACTS)
    state, needs = _state(site, found), runs.needs_approval(found, site.settings)
    planned, was = words.operation_state(found) == "planned", request.query_params.get("was")
    return {
        "run": found,
        "state": state,
        "shape": f"{state}-{found.approved_by is not None}-{found.asked_for}",
        "was": was if was in _STATES else None,
        "acts": acts,
        "live": state in ("waiting", "running") or (planned and needs),
        "watch_s": WATCH_S,
        "needs_approval": planned and needs,
        "own": found.requested_by == visitor_of(request).user_id,
        "runnable": bool(found.items) and ((state == "planned" and not needs) or state in _RESUMABLE),
        "resumes": not planned,
        "pausable": state == "running",
        "cancellable": words.operation_state(found) in _OPEN,
        "again": plans.is_repeatable(found),
        "failures": _failures(found),
    }


def _failures(found: Operation) -> list[dict[str, Any]]:
    """Items that were not done, as the tool noted them."""
    progress = cast("dict[str, Any]", found.progress) if isinstance(found.progress, dict) else {}
    return progress.get("failed", [])
