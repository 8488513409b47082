"""Organizations: found by the beginning of their name, and looked at as they are and as they were.

The slider goes through versions, which is time in steps that mean something; a moment (a time, a position, a mark) is
turned into the version there was then.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from org_service.console.pages import page
from org_service.console.requests import ROOT, Rejected, read_id, read_number, visitor_of
from org_service.console.site import Site
from org_service.domain.organization import StoredOrganization, to_published
from org_service.errors import PreconditionError
from org_service.operate import past
from org_service.store import directory, journal, organizations
from org_service.store.directory import Listing
from org_service.store.journal import HistoryEntry

_ROWS: Final = 30
_CHANGES: Final = 25
_QUERY_CHARS_MAX: Final = 300
_FIELDS: Final = ("name", "domain", "primary_address", "deactivated")
PATH: Final = f"{ROOT}/organizations"


def make_router(site: Site) -> APIRouter:
    """Search, an organization, and what it was."""
    routes = APIRouter()

    @routes.get(PATH)
    async def search(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - by its decorator
        asked = request.query_params.get("q", "")[:_QUERY_CHARS_MAX].strip()
        after = request.query_params.get("after"), request.query_params.get("after_id")
        found = await _search(site, visitor_of(request).user_id, asked, after)
        part = request.headers.get("hx-target") == "found"
        return page(request, "organizations_found" if part else "organizations", {"asked": asked} | found)

    @routes.get(f"{PATH}/{{org_id}}")
    async def organization(request: Request, org_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await _find(site, org_id)
        before = read_number(request.query_params.get("before"), found.version + 1)
        async with site.database.connect() as conn:
            after = max(0, min(before - 1, found.version) - _CHANGES)
            changes = await journal.read_history(conn, found.id, min(_CHANGES, before - 1 - after), after)
        at = read_number(request.query_params.get("version"), found.version)
        shown = {"found": found, "changes": changes[::-1], "older": after + 1 if after else None, "before": before}
        shown |= {"erasable_from": _erasable_from(site, found), "now": datetime.now(UTC)}
        return page(request, "organization", shown | await _state(site, found, at))

    @routes.get(f"{PATH}/{{org_id}}/state")
    async def state(request: Request, org_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await _find(site, org_id)
        at = read_number(request.query_params.get("version"), found.version)
        answer = page(request, "organization_state", {"found": found} | await _state(site, found, at))
        answer.headers["hx-replace-url"] = f"{PATH}/{found.id}?version={at}"
        return answer

    @routes.get(f"{PATH}/{{org_id}}/at")
    async def then(request: Request, org_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await _find(site, org_id)
        moment = request.query_params.get("moment", "").strip() or past.NOW
        async with site.database.connect() as conn:
            position = await past.find_position(conn, moment)
            states = await past.find_states(conn, [found.id], position)
        if not states:
            raise PreconditionError(f"It was not there yet at position {position:,}.")
        return RedirectResponse(f"{PATH}/{found.id}?version={states[0].version}#was", 303)

    return routes


async def _search(site: Site, user_id: str, asked: str, after: tuple[str | None, str | None]) -> dict[str, Any]:
    """A page of organizations that begin so; and what has the whole name or id, deleted or not."""
    key, after_id = after
    place = None if key is None or after_id is None else (key, read_id(after_id, "organization"))
    listing = Listing(asked or None, None, "name", _ROWS, place)
    async with site.database.connect() as conn:
        try:
            found = await directory.list_for(conn, user_id, listing, site.policy)
        except ValueError:
            raise Rejected(400, "Not understood", "This is no page of a list.") from None
        known = {each.id for each in found.entries}
        named = await organizations.find_by_id_or_name(conn, asked) if asked and directory.is_storable(asked) else []
    following = None
    if found.after is not None:
        following = urlencode({"q": asked, "after": found.after[0], "after_id": str(found.after[1])})
    return {"entries": found.entries, "others": [each for each in named if each.id not in known], "next": following}


async def _find(site: Site, org_id: str) -> StoredOrganization:
    async with site.database.connect() as conn:
        found = await organizations.find_by_ids(conn, [read_id(org_id, "organization")])
    if not found:
        raise Rejected(404, "No such organization", "There is none with this id, and never was.")
    return found[0]


def _erasable_from(site: Site, found: StoredOrganization) -> datetime | None:
    """When the grace of a deleted organization is over; None of one that can't be erased."""
    if found.deleted_at is None or found.erased:
        return None
    return found.deleted_at + timedelta(days=site.settings.operate.erase_grace_days)


async def _state(site: Site, found: StoredOrganization, version: int) -> dict[str, Any]:
    """What it was at a version, and what that version changed."""
    at = max(1, min(version, found.version))
    async with site.database.connect() as conn:
        read: Sequence[HistoryEntry] = await journal.read_history(conn, found.id, 1, at - 1)
    change = read[0] if read and read[0].version == at else None
    was: Mapping[str, Any] | None = None if change is None else change.after
    if change is None and at == found.version and found.deleted_at is None:
        was = to_published(found)
    return {"at": at, "change": change, "was": was, "fields": _FIELDS}
