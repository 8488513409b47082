"""Plans that pages offer: a form says what it is about, in hidden fields, and why; the tool is the command line's.

A form has an id. The plan's own id is made of it and of what the form says, so a form makes one plan, however often it
is sent: by a double click, from a page that was gone back to, by a browser that tries again. What would take too long,
or too much memory of a process that serves others too, is left to the command line.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from uuid import UUID, uuid5

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from org_service.console.requests import (
    CSRF_FIELD,
    ROOT,
    Rejected,
    form_of,
    read_id,
    read_number,
    read_reason,
    visitor_of,
)
from org_service.console.site import Site
from org_service.domain.reasons import ConsoleAct, OperationState
from org_service.errors import PreconditionError
from org_service.operate import runs
from org_service.operate.changes import Selection
from org_service.operate.erase import Erase
from org_service.operate.operation import Tool, open_database
from org_service.operate.parked import DiscardParked, ReleaseParked
from org_service.operate.parked_selection import ParkedSelection
from org_service.operate.replay_events import ReplayEvents, fresh_topic
from org_service.operate.tools import make_tool
from org_service.operate.undo import Undo
from org_service.operate.verifying.repair import Repair
from org_service.settings import Settings
from org_service.store import operations
from org_service.store.operations import Operation

PATH: Final = f"{ROOT}/plans"
ITEMS_MAX: Final = 20_000
"""Of an undo, or of what is planned again: some 60 MB while it is planned."""
_REPEATABLE: Final = frozenset(tool.kind for tool in (Undo, ReplayEvents, Erase, ReleaseParked, DiscardParked, Repair))
"""Kinds whose plan reads tables, and little of Kafka; of the others a plan may take minutes."""

Make = Callable[[Settings, Mapping[str, str]], Awaitable[Tool]]


def make_router(site: Site) -> APIRouter:
    """Where all these forms go."""
    routes = APIRouter()

    @routes.post(f"{PATH}/{{what}}")
    async def plan(request: Request, what: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        form, reason = form_of(request), read_reason(form_of(request))
        plan_id = _name_plan(form, what)
        async with site.database.connect() as conn:
            kept = await operations.find(conn, plan_id)
        if kept is None:
            await _make(site, request, what, plan_id, reason)
        return RedirectResponse(f"{ROOT}/runs/{plan_id}", 303)

    return routes


def is_repeatable(operation: Operation) -> bool:
    """Whether the same can be planned again here: it is over, or its time is, and a page can make such a plan."""
    over = operation.expired or operation.state in (OperationState.FAILED, OperationState.CANCELLED)
    return over and operation.kind in _REPEATABLE and operation.items <= ITEMS_MAX


async def _make(site: Site, request: Request, what: str, plan_id: UUID, reason: str) -> None:
    """Make a plan in the name of who asks, and keep that it was made here; nothing else is changed."""
    form, visitor, make = form_of(request), visitor_of(request), _TOOLS.get(what)
    if make is None:
        raise Rejected(404, "Not here", "There is no such page.")
    limit = asyncio.timeout(site.settings.console.plan_timeout_s)
    try:
        async with limit:
            tool = await make(site.settings, form)
            await runs.keep_plan(
                site.settings,
                tool,
                requested_by=visitor.user_id,
                reason=reason,
                rate_per_second_max=_read_rate(form),
                operation_id=plan_id,
            )
    except TimeoutError:
        if not limit.expired():
            raise
        raise Rejected(503, "Too long for a page", "Nothing was planned: make this plan on the command line.") from None
    await site.note(visitor, ConsoleAct.PLANNED, plan_id)


def _name_plan(form: Mapping[str, str], what: str) -> UUID:
    said = sorted(pair for pair in form.items() if pair[0] != CSRF_FIELD)
    return uuid5(read_id(form.get("form", ""), "form"), orjson.dumps([what, said]).decode())


async def _undo_change(settings: Settings, form: Mapping[str, str]) -> Tool:
    return await _undo(settings, Selection(command_ids=(read_id(form.get("command", ""), "command"),)))


async def _undo_since(settings: Settings, form: Mapping[str, str]) -> Tool:
    since = max(1, read_number(form.get("since"), 1))
    return await _undo(settings, Selection(actors=(_text(form, "by"),), from_position=since))


async def _undo_actor(settings: Settings, form: Mapping[str, str]) -> Tool:
    return await _undo(settings, Selection(actors=(_text(form, "by"),)))


async def _undo(settings: Settings, selection: Selection) -> Tool:
    changes = 0
    async with open_database(settings) as database:
        selection = await selection.pinned(database)
        async for found in selection.read_ids(database):
            changes += len(found)
            if changes > ITEMS_MAX:
                raise PreconditionError(
                    f"These are more than {ITEMS_MAX:,} changes: plan it on the command line, with `orgs undo`."
                )
    return await Undo.make(settings, selection)


async def _replay(settings: Settings, form: Mapping[str, str]) -> Tool:
    return await ReplayEvents.make(settings, _changes_of(form), fresh_topic(settings), "fresh")


async def _replay_in_place(settings: Settings, form: Mapping[str, str]) -> Tool:
    return await ReplayEvents.make(settings, _changes_of(form), settings.kafka.topics.events, "in_place")


def _changes_of(form: Mapping[str, str]) -> Selection:
    return Selection(org_ids=(read_id(form.get("org", ""), "organization"),))


async def _erase(settings: Settings, form: Mapping[str, str]) -> Tool:
    return await Erase.make(settings, str(read_id(form.get("org", ""), "organization")))


async def _erase_now(settings: Settings, form: Mapping[str, str]) -> Tool:
    return await Erase.make(settings, str(read_id(form.get("org", ""), "organization")), before_grace=True)


def _of_parked(tool: type[ReleaseParked] | type[DiscardParked]) -> Make:
    """Of one record, or of a group."""

    async def make(settings: Settings, form: Mapping[str, str]) -> Tool:
        if "record" in form:
            return await tool.make(settings, ParkedSelection(ids=(read_number(form["record"], 0),)))
        return await tool.make(settings, ParkedSelection(), group=_text(form, "group"))

    return make


async def _again(settings: Settings, form: Mapping[str, str]) -> Tool:
    """The same as a plan that came to nothing: what it selects is what it selected then, and is counted again."""
    before = await runs.find(settings, read_id(form.get("run", ""), "run"))
    if not is_repeatable(before):
        raise PreconditionError("This can't be planned again here: the command line can.")
    try:
        return make_tool(settings, before.kind, before.parameters)
    except ValidationError:
        raise PreconditionError("What this was to do is not known any more: its organizations were erased.") from None


def _text(form: Mapping[str, str], name: str) -> str:
    if not (text := form.get(name, "").strip()):
        raise Rejected(400, "Not a form", f"The form doesn't say {name}.")
    return text


def _read_rate(form: Mapping[str, str]) -> float | None:
    """Of a plan that is made again, as a hidden field has it."""
    try:
        rate = float(form.get("rate") or "nan")
    except ValueError:
        return None
    return rate if 0 < rate < float("inf") else None


_TOOLS: Final[Mapping[str, Make]] = {
    "undo": _undo_change,
    "undo-since": _undo_since,
    "undo-actor": _undo_actor,
    "replay": _replay,
    "replay-in-place": _replay_in_place,
    "erase": _erase,
    "erase-now": _erase_now,
    "release": _of_parked(ReleaseParked),
    "discard": _of_parked(DiscardParked),
    "again": _again,
}
"""By the last part of the form's address."""
