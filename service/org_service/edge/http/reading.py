"""The operations that read: one statement each, bytes written as they go out."""

from hashlib import blake2b
from typing import Annotated, Any, Final
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Path, Query, Request, Response

from org_events.results import Outcome, ProblemType
from org_service import probes
from org_service.domain.access import AccessKind
from org_service.domain.organization import OrderBy, StoredOrganization, to_published
from org_service.domain.outcomes import KnownOutcome, UndecidedStatus
from org_service.domain.policy import READ, Policy
from org_service.edge.http.bodies import JSON
from org_service.edge.http.commands import Commands
from org_service.edge.http.cursor import CURSOR_CHARS_MAX, read_cursor, write_cursor
from org_service.edge.http.gate import CALLER, Caller
from org_service.edge.http.models import LIMIT_DEFAULT, SEARCH_CHARS_MAX, Limit
from org_service.edge.http.openapi import ORG_ID, describe_headers, describe_problems, describe_success
from org_service.edge.http.problems import (
    RETRY_AFTER_S,
    HttpProblem,
    ProblemError,
    bad_request,
    denied,
    no_such_command,
    not_found,
)
from org_service.edge.http.request_headers import combine, is_current, make_etag_for
from org_service.probes import probe
from org_service.store import directory, journal, outcomes, relations
from org_service.store.database import Database
from org_service.wire.ids import read_uuid

_PRIVATE: Final = {"vary": "Authorization", "cache-control": "private, no-cache"}
"""Each caller's answer is their own, and shown again only after asking (`If-None-Match`)."""
_WRITE: Final = orjson.OPT_UTC_Z

OrgId = Annotated[str, Path(json_schema_extra={"format": "uuid"}, examples=[ORG_ID])]


def read_id(text: str) -> UUID | None:
    """The UUID of a path, in its one form of 36 characters; None for what can't be the id of anything."""
    return read_uuid(text.encode(errors="replace"))


def get_caller(request: Request) -> Caller:
    """Who asks; the gate lets nobody else in."""
    return request.scope[CALLER]


def encode_organization(organization: StoredOrganization, access: dict[str, Any]) -> bytes:
    """`SeenOrganization`."""
    return orjson.dumps(to_published(organization) | access, option=_WRITE)


class Reading:
    """The handlers.

    Args:
        database: Of the role `edge`, in AUTOCOMMIT: one statement, one round trip.
        policy: What the roles are denied.
        commands: Knows what was accepted a moment ago.
        public_url: Put before links; empty makes them relative.
    """

    def __init__(self, database: Database, policy: Policy, commands: Commands, public_url: str) -> None:
        self._database = database
        self._policy = policy
        self._commands = commands
        self._public_url = public_url

    async def list_organizations(  # noqa: PLR0917 - called by name
        self,
        request: Request,
        search: Annotated[
            str | None,
            Query(max_length=SEARCH_CHARS_MAX, description="Beginning of the name or the domain, ignoring case"),
        ] = None,
        access: Annotated[AccessKind | None, Query(description="Only organizations with this access")] = None,
        order_by: Annotated[OrderBy, Query(description="A leading minus sorts in descending order")] = "name",
        limit: Annotated[Limit, Query(description="Maximum number of entries on a page")] = LIMIT_DEFAULT,
        cursor: Annotated[
            str | None, Query(max_length=CURSOR_CHARS_MAX, description="`next` of the previous page")
        ] = None,
    ) -> Response:
        """The caller's organizations, in pages. Staff see every active one."""
        search = search or None
        if search is not None and "\0" in search:
            raise bad_request("search must not contain a NUL character.")
        question = f"{search}\0{access}\0{order_by}"
        listing = directory.Listing(
            search=search,
            access=access,
            order_by=order_by,
            limit=limit,
            after=None if cursor is None else read_cursor(question, cursor),
            readable=True,
        )
        async with self._database.connect() as conn:
            page = await directory.list_for(conn, get_caller(request).user_id, listing, self._policy)
        following = None if page.after is None else write_cursor(question, page.after)
        content = orjson.dumps(
            {
                "organizations": [
                    {
                        "id": str(entry.id),
                        "name": entry.name,
                        "domain": entry.domain,
                        "deactivated": entry.deactivated,
                        "role": entry.access.role,
                        "access": entry.access.kind,
                        "is_default": entry.is_default,
                        "denied_actions": entry.access.denied_actions,
                    }
                    for entry in page.entries
                ],
                "next": following,
            }
        )
        link: dict[str, str] = {}
        if following is not None:
            asked = {"search": search, "access": access, "order_by": order_by, "limit": limit, "cursor": following}
            link = link_to_next(self._public_url, "/v1/orgs", asked)
        return Response(content, headers={**_PRIVATE, **link}, media_type=JSON)

    async def get_organization(self, request: Request, org_id: OrgId) -> Response:
        """One organization, and what the caller is in it. `If-None-Match` with its ETag gives 304."""
        seen = await self._seen(request, org_id)
        role, kind, denied = seen.access.role, seen.access.kind, seen.access.denied_actions
        access: dict[str, Any] = {"role": role, "access": kind, "denied_actions": denied}
        tag = make_etag_for(seen.organization.version, blake2b(orjson.dumps(access), digest_size=4).hexdigest())
        tagged = {**_PRIVATE, "etag": tag.decode()}
        if_none_match = combine(request.headers.getlist("if-none-match"))
        if if_none_match is not None and is_current(if_none_match, tag):
            return Response(status_code=304, headers=tagged)
        content = encode_organization(seen.organization, access)
        return Response(content, headers=tagged, media_type=JSON)

    async def get_history(
        self,
        request: Request,
        org_id: OrgId,
        limit: Annotated[Limit, Query(description="Maximum number of entries on a page")] = LIMIT_DEFAULT,
        after_version: Annotated[int, Query(ge=0, le=2**63 - 1, description="The last version seen")] = 0,
    ) -> Response:
        """The changes of an organization in order, each with the organization before and after."""
        seen = await self._seen(request, org_id)
        async with self._database.connect() as conn:
            found = await journal.read_history(conn, seen.organization.id, limit + 1, after_version)
        entries, more = found[:limit], len(found) > limit
        following = entries[-1].version if more else None
        content = orjson.dumps(
            {
                "changes": [
                    {
                        "version": entry.version,
                        "position": entry.position,
                        "type": entry.event_type,
                        "changed": entry.changed,
                        "before": entry.before,
                        "after": entry.after,
                        "command_id": str(entry.command_id),
                        "actor": entry.actor,
                        "recorded_at": entry.recorded_at,
                    }
                    for entry in entries
                ],
                "next": following,
            },
            option=_WRITE,
        )
        link: dict[str, str] = {}
        if following is not None:
            link = link_to_next(
                self._public_url,
                f"/v1/orgs/{seen.organization.id}/history",
                {"limit": limit, "after_version": following},
            )
        return Response(content, headers={**_PRIVATE, **link}, media_type=JSON)

    async def get_command(self, request: Request, command_id: OrgId) -> Response:
        """The status of a change. Only for the actor who requested it, and for staff."""
        wanted, caller = read_id(command_id), get_caller(request)
        if wanted is None:
            raise no_such_command()
        accepted = self._commands.find_accepted(wanted)
        async with self._database.connect() as conn:
            found = await outcomes.find(conn, wanted)
            promised = accepted if found is None else found
            theirs = (promised is not None and promised.actor == caller.user_id) or await relations.is_staff(
                conn, caller.user_id
            )
            shown = found.org_id if isinstance(found, KnownOutcome) and found.after is not None else None
            hidden = await directory.is_hidden(conn, caller.user_id, shown, self._policy)
        if promised is None or not theirs:
            raise no_such_command()
        if isinstance(found, KnownOutcome):
            content = _decided(found, hidden=hidden)
        elif found is None or found.status == "pending":
            return answer_pending(wanted, promised.org_id, 200, {"retry-after": str(RETRY_AFTER_S), **_PRIVATE})
        else:
            problem = _expired().problem if found.status == "expired" else None
            content = _undecided(wanted, found.org_id, found.status, problem)
        return Response(orjson.dumps(content), headers=_PRIVATE, media_type=JSON)

    async def _seen(self, request: Request, org_id: str) -> directory.Seen:
        """What the caller sees; 404 for what does not exist or isn't theirs to see, 403 where the role may not read."""
        wanted = read_id(org_id)
        if wanted is None:
            raise not_found()
        if probes.listeners:
            await probe("edge.before_look")
        async with self._database.connect() as conn:
            seen = await directory.find(conn, get_caller(request).user_id, wanted, self._policy)
        if seen is None:
            raise not_found()
        if READ in seen.access.denied_actions:
            raise denied(seen.access.role)
        return seen


def link_to_next(public_url: str, path: str, asked: dict[str, Any]) -> dict[str, str]:
    """The header that leads to the next page; what is None wasn't asked for."""
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    return {"link": f'<{public_url.rstrip("/")}{path}?{query}>; rel="next"'}


def answer_pending(command_id: UUID, org_id: UUID | None, status: int, headers: dict[str, str]) -> Response:
    """The status of a command that isn't decided yet."""
    content = _undecided(command_id, org_id, "pending", None)
    return Response(orjson.dumps(content), status, headers, media_type=JSON)


def _decided(known: KnownOutcome, *, hidden: bool) -> dict[str, Any]:
    """The status of a command that is decided; `hidden` leaves the organization out."""
    changed = None if known.event_type is None else _fragment(known.changed)
    return {
        "command_id": str(known.command_id),
        "status": known.outcome,
        "code": known.code,
        "org_id": _text(known.org_id),
        "version": known.version,
        "position": known.position,
        "organization": None if hidden else _fragment(known.after),
        "changed": [] if known.outcome == Outcome.UNCHANGED else changed,
        "problem": _fragment(known.problem),
    }


def _undecided(
    command_id: UUID, org_id: UUID | None, status: UndecidedStatus, problem: dict[str, Any] | None
) -> dict[str, Any]:
    """The status of a command that has no outcome."""
    return {
        "command_id": str(command_id),
        "status": status,
        "code": None,
        "org_id": _text(org_id),
        "version": None,
        "position": None,
        "organization": None,
        "changed": None,
        "problem": problem,
    }


def _expired() -> ProblemError:
    return ProblemError(
        HttpProblem.COMMAND_EXPIRED,
        "Kafka lost the command before it was decided, so nothing was changed. Send the same request again, "
        "with the same Idempotency-Key if it had one.",
    )


def _text(org_id: UUID | None) -> str | None:
    return None if org_id is None else str(org_id)


def _fragment(json: str | None) -> orjson.Fragment | None:
    return None if json is None else orjson.Fragment(json)


_LINK: Final = {"Link": 'The next page, `rel="next"`; absent on the last page'}
_ETAG: Final = {"ETag": 'The version and the caller\'s role, such as `"v7-1f0c9a3e"`'}


def make_router(reading: Reading) -> APIRouter:
    """The operations with their documentation."""
    routes = APIRouter(prefix="/v1", default_response_class=Response)
    visible = describe_problems(ProblemType.FORBIDDEN, ProblemType.NOT_FOUND)
    routes.get(
        "/orgs",
        tags=["organizations"],
        summary="List organizations",
        responses={200: describe_success("A page", "OrganizationList", _LINK), **describe_problems()},
    )(reading.list_organizations)
    routes.get(
        "/orgs/{org_id}",
        tags=["organizations"],
        summary="Get an organization",
        responses={
            200: describe_success("The organization", "SeenOrganization", _ETAG),
            304: {"description": "The client already has this version", **describe_headers(_ETAG)},
            **visible,
        },
        openapi_extra={
            "parameters": [
                {
                    "name": "If-None-Match",
                    "in": "header",
                    "description": "ETags that the client has, or *",
                    "schema": {"type": "string"},
                    "example": '"v7-1f0c9a3e"',
                }
            ]
        },
    )(reading.get_organization)
    routes.get(
        "/orgs/{org_id}/history",
        tags=["organizations"],
        summary="List an organization's changes",
        responses={200: describe_success("A page", "History", _LINK), **visible},
    )(reading.get_history)
    routes.get(
        "/commands/{command_id}",
        tags=["commands"],
        summary="Get the status of a change",
        responses={
            200: describe_success(
                "Pending or decided", "CommandStatus", {"Retry-After": "Seconds; only while pending"}
            ),
            **describe_problems(HttpProblem.NO_SUCH_COMMAND),
        },
    )(reading.get_command)
    return routes
