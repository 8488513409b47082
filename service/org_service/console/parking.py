"""What is parked: groups by cause, the records of one, a record masked or revealed."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from org_service.console.pages import page
from org_service.console.requests import ROOT, Rejected, form_of, read_number, read_reason, visitor_of
from org_service.console.site import Site
from org_service.domain.outcomes import StoredRecord
from org_service.domain.reasons import ConsoleAct, ParkedState
from org_service.operate import parked_contents, runs
from org_service.operate.parked_contents import RevealParked
from org_service.operate.parked_selection import name_group
from org_service.store import parked_queues
from org_service.store.parked_queues import ParkedFilter, ParkedGroup

PATH: Final = f"{ROOT}/parked"
_RECORDS: Final = 50


def make_router(site: Site) -> APIRouter:
    """The pages."""
    routes = APIRouter()

    @routes.get(PATH)
    async def groups(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - by its decorator
        async with site.database.connect() as conn:
            found = await parked_queues.group(conn)
        return page(request, "parked", {"groups": {name_group(each): each for each in found}})

    @routes.get(f"{PATH}/groups/{{name}}")
    async def group(request: Request, name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        after = request.query_params.get("after", "")
        async with site.database.connect() as conn:
            found = {name_group(each): each for each in await parked_queues.group(conn)}
            if name not in found:
                raise Rejected(404, "No such group", "Nothing is parked for this cause (any more).")
            wanted = _records_of(found[name])
            first = read_number(after, 0)
            records = await parked_queues.list_records(conn, wanted, first, _RECORDS + 1)
        shown = {"name": name, "group": found[name], "records": records[:_RECORDS]}
        return page(request, "parked_group", shown | {"next": records[_RECORDS - 1].id if records[_RECORDS:] else None})

    @routes.get(f"{PATH}/records/{{parked_id}}")
    async def record(request: Request, parked_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await _show(site, request, read_number(parked_id, 0), reveal=False)

    @routes.get(f"{PATH}/records/{{parked_id}}/reveal")
    async def hide(parked_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """Where a browser goes back to from what was revealed: shown again it is only for a reason."""
        return RedirectResponse(f"{PATH}/records/{read_number(parked_id, 0)}", 303)

    @routes.post(f"{PATH}/records/{{parked_id}}/reveal")
    async def reveal(request: Request, parked_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        visitor, reason, which = visitor_of(request), read_reason(form_of(request)), read_number(parked_id, 0)
        tool = RevealParked(site.settings, {"parked_id": which})
        planned, _ = await runs.keep_plan(site.settings, tool, requested_by=visitor.user_id, reason=reason)
        await site.note(visitor, ConsoleAct.REVEALED, planned.id)
        await runs.run(site.settings, planned.id)
        return await _show(site, request, which, reveal=True)

    return routes


def _records_of(group: ParkedGroup) -> ParkedFilter:
    return ParkedFilter(
        ParkedState.OPEN, topic=group.topic, reason=group.reason, cause=group.cause, exhausted=group.exhausted
    )


async def _show(site: Site, request: Request, parked_id: int, *, reveal: bool) -> Response:
    async with site.database.connect() as conn:
        stored, queue = await parked_contents.read_from(conn, parked_id)
    shown: dict[str, Any] = {
        "record": parked_contents.describe(stored, reveal=reveal),
        "queue": queue,
        "open": stored.state == ParkedState.OPEN,
        "releasable": _is_releasable(site, stored),
    }
    return page(request, "parked_record", shown)


def _is_releasable(site: Site, stored: StoredRecord) -> bool:
    """Whether a release may do something with it: facts, what is cut and what failed too often can't be decided."""
    commands = stored.topic == site.settings.kafka.topics.commands
    return commands and stored.value_bytes is None and stored.state == ParkedState.OPEN and not stored.exhausted
