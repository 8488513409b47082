"""The operations that change: a request becomes a command, and the command's outcome the answer.

Only what makes no command at all is rejected here (400, 413, 415). Whether the caller may, whether the fields are right
and whether preconditions hold, the worker says, in its order: 404, 403, 422, 410, 409.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request, Response

from org_events.commands import (
    RESERVED_IDS,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.ids import uuid7
from org_events.results import Outcome, ProblemType
from org_service.domain import details
from org_service.edge.http.bodies import JSON, MERGE_PATCH, NEVER, make_bodies, read_object
from org_service.edge.http.commands import ChangeRequest, CommandBody, Commands, Decided, Pending
from org_service.edge.http.gate import BODY
from org_service.edge.http.openapi import describe_body, describe_headers, describe_problems, describe_success
from org_service.edge.http.problems import (
    RETRY_AFTER_S,
    HttpProblem,
    ProblemError,
    Wrong,
    bad_request,
    not_found,
    version_not_named,
    wrap_problem,
)
from org_service.edge.http.reading import OrgId, answer_pending, get_caller, read_id
from org_service.edge.http.request_headers import (
    COMMAND_ID,
    ETAGS_MAX,
    IDEMPOTENCY_KEY_CHARS_MAX,
    IfMatch,
    combine,
    derive_command_id,
    forbids_any,
    make_etag,
    parse_preference,
    read_if_match,
    require_single,
)

_NO_VERSION_YET: Final = "An organization that does not exist yet has no version: omit If-Match and If-None-Match."
_WEAK: Final = (
    'If-Match contains a weak entity tag (W/"…"), which never matches (RFC 9110, section 13.1.1). A proxy '
    "made it weak, for example when compressing the response. Send it without W/; the organization has "
    "version {version}."
)

_TAG: Final = r'(W/)?"[!#-~]*"'
IfMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description='ETags of the versions to change, such as `"v7"`; 412 for others',
        json_schema_extra={"pattern": rf"^(\*|[ \t,]*{_TAG}([ \t]*,[ \t,]*{_TAG}){{0,{ETAGS_MAX - 1}}}[ \t,]*)$"},
        examples=['"v7"'],
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        description="`*`: 412 if the organization exists; no other value is allowed with a change",
        json_schema_extra={"pattern": r"^\*$"},
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes retries safe: the same key is the same change, and gets the first response again",
        json_schema_extra={
            "pattern": f'^([!#-~]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}|"[!#-~]{{1,{IDEMPOTENCY_KEY_CHARS_MAX}}}")$'
        },
        examples=["3f1c"],
    ),
]
Prefer = Annotated[str | None, Header(alias="Prefer", description="`respond-async`, or `wait=N` seconds; then 202")]


def derive_org_id(command_id: UUID) -> UUID:
    """The id of an organization whose creator chose none: the same for the same command, in the form of version 4."""
    digest = blake2b(b"org\0" + command_id.bytes, digest_size=16).digest()
    return UUID(bytes=digest, version=4)


class Wishes(NamedTuple):
    """Headers of a request that changes something."""

    key: str | None
    prefer: str | None
    if_match: IfMatch = IfMatch(None)
    if_absent: bool = False
    """`If-None-Match: *`: only what does not exist may be changed."""

    @property
    def versions(self) -> tuple[int, ...] | None:
        """Those that the preconditions let through; None for any."""
        return NEVER if self.if_absent else self.if_match.versions


async def _wishes(
    request: Request,
    idempotency_key: IdempotencyKey = None,  # noqa: ARG001 - for the document: FastAPI reads the first line alone
    prefer: Prefer = None,  # noqa: ARG001
) -> Wishes:
    """The headers as HTTP reads them, in whatever number of lines they came."""
    lines = request.headers.getlist
    return Wishes(
        require_single(lines("idempotency-key"), "Idempotency-Key"),
        combine(lines("prefer")),
        read_if_match(combine(lines("if-match"))),
        forbids_any(combine(lines("if-none-match"))),
    )


async def _guarded(
    wishes: Annotated[Wishes, Depends(_wishes)],
    if_match: IfMatchHeader = None,  # noqa: ARG001
    if_none_match: IfNoneMatch = None,  # noqa: ARG001
) -> Wishes:
    return wishes


Guarded = Annotated[Wishes, Depends(_guarded)]


class Changing:
    """The handlers.

    Args:
        commands: Publishes, and knows outcomes.
        wait_max_s: For an outcome; then 202.
        public_url: Put before locations; empty makes them relative.
    """

    def __init__(self, commands: Commands, wait_max_s: float, public_url: str) -> None:
        self._commands = commands
        self._wait_max_s = wait_max_s
        self._public_url = public_url.rstrip("/")

    async def create(self, request: Request, wishes: Annotated[Wishes, Depends(_wishes)]) -> Response:
        """Create an organization, under an id of your choice if you give one."""
        fields = _object(request, patch=False)
        wanted = fields.pop("id", None)
        command_id = _command_id(request, wishes)
        org_id = _chosen_id(wanted, command_id)
        if org_id is None:
            raise bad_request("id must be a UUID of 36 characters.", [Wrong("id", "not_a_uuid", "Send a UUID")])
        if org_id in RESERVED_IDS:
            wrong = Wrong("id", "reserved_uuid", "Send another id, or none")
            raise bad_request("id must not be the nil or max UUID (RFC 9562, sections 5.9 and 5.10).", [wrong])
        if wishes.versions is not None:
            raise ProblemError(ProblemType.PRECONDITION, _NO_VERSION_YET, status=412)
        change = self._change(CreateOrganization.type, org_id, command_id, make_bodies(fields, org_id, None), wishes)
        return await self._answer(request, change, wishes, 201)

    async def update(self, request: Request, org_id: OrgId, wishes: Guarded) -> Response:
        """Change some fields: left out means unchanged, null clears, an address is replaced whole."""
        return await self._existing(
            UpdateOrganization.type, request, org_id, wishes, fields=_object(request, patch=True)
        )

    async def delete(self, request: Request, org_id: OrgId, wishes: Guarded) -> Response:
        """Delete an organization; staff may restore it."""
        return await self._existing(DeleteOrganization.type, request, org_id, wishes, status=204)

    async def deactivate(self, request: Request, org_id: OrgId, wishes: Guarded) -> Response:
        """Deactivate an organization: until reactivated, only staff change it."""
        return await self._existing(DeactivateOrganization.type, request, org_id, wishes)

    async def reactivate(self, request: Request, org_id: OrgId, wishes: Guarded) -> Response:
        """Take a deactivation back."""
        return await self._existing(ReactivateOrganization.type, request, org_id, wishes)

    async def restore(self, request: Request, org_id: OrgId, wishes: Guarded) -> Response:
        """Bring a deleted organization back as it was. Only for staff: nobody else sees a deleted one."""
        return await self._existing(RestoreOrganization.type, request, org_id, wishes)

    async def _existing(
        self,
        command_type: str,
        request: Request,
        org_id: str,
        wishes: Wishes,
        *,
        fields: Mapping[str, Any] | None = None,
        status: int = 200,
    ) -> Response:
        """A change of an organization that is there; without `fields` it may have preconditions for a body."""
        if fields is None:
            fields = _object(request, patch=False) if request.scope[BODY] else {}
        command_id = _command_id(request, wishes)
        wanted = read_id(org_id)
        if wanted is None:
            raise not_found()
        change = self._change(command_type, wanted, command_id, make_bodies(fields, wanted, wishes.versions), wishes)
        return await self._answer(request, change, wishes, status)

    def _change(
        self, command_type: str, org_id: UUID, command_id: UUID, bodies: Sequence[CommandBody], wishes: Wishes
    ) -> ChangeRequest:
        wait_s = parse_preference(wishes.prefer, self._wait_max_s).wait_s
        return ChangeRequest(command_type, org_id, command_id, bodies, repeatable=wishes.key is not None, wait_s=wait_s)

    async def _answer(self, request: Request, change: ChangeRequest, wishes: Wishes, status: int) -> Response:
        outcome = await self._commands.execute(get_caller(request), change)
        applied = parse_preference(wishes.prefer, self._wait_max_s).describe_applied(
            pending=isinstance(outcome, Pending)
        )
        given = {COMMAND_ID: str(change.command_id)} | ({} if applied is None else {"preference-applied": applied})
        if isinstance(outcome, Pending):
            given |= {"location": self._command_url(change.command_id), "retry-after": str(RETRY_AFTER_S)}
            return answer_pending(change.command_id, change.org_id, 202, given)
        if outcome.problem is not None:
            raise self._problem_of(outcome, outcome.problem, wishes)
        if outcome.version is not None and outcome.organization is not None:
            given["etag"] = make_etag(outcome.version).decode()
        if status == 201:
            given["location"] = f"{self._public_url}/v1/orgs/{outcome.org_id}"
        if status == 204:
            return Response(status_code=204, headers=given)
        if outcome.organization is None:  # a request that comes again, long after
            raise ProblemError(ProblemType.ERASED, details.FORGOTTEN)
        return Response(outcome.organization, status, given, media_type=JSON)

    def _problem_of(self, outcome: Decided, problem: dict[str, Any], wishes: Wishes) -> ProblemError:
        """What the worker rejected or parked; the same whenever it is asked for."""
        if outcome.outcome == Outcome.PARKED:
            problem_error = wrap_problem({**problem, "command_id": str(outcome.command_id)}, 500)
            problem_error.headers = [(b"location", self._command_url(outcome.command_id).encode())]
            return problem_error
        if problem["type"] == ProblemType.PRECONDITION and outcome.body.expected_version not in (
            None,
            outcome.version,
        ):
            return _unmatched(problem, outcome.version, wishes)
        return wrap_problem(problem, outcome.code)

    def _command_url(self, command_id: UUID) -> str:
        return f"{self._public_url}/v1/commands/{command_id}"


def _unmatched(problem: dict[str, Any], version: int | None, wishes: Wishes) -> ProblemError:
    """The worker's problem in terms of the headers, where a precondition of these doesn't hold."""
    if wishes.if_absent:
        return wrap_problem(problem, 412, "If-None-Match is *, and the organization exists.")
    if wishes.if_match.weak:
        return wrap_problem(problem, 412, _WEAK.format(version=version))
    return wrap_problem(problem, 412, version_not_named(version).problem["detail"])


def _object(request: Request, *, patch: bool) -> dict[str, Any]:
    lines = request.headers.getlist
    content_type = require_single(lines("content-type"), "Content-Type")
    return read_object(request.scope[BODY], content_type, lines("content-encoding"), patch=patch)


def _chosen_id(wanted: object, command_id: UUID) -> UUID | None:
    """The id of an organization to create; None where it can't be one."""
    if wanted is None:
        return derive_org_id(command_id)
    return read_id(wanted) if isinstance(wanted, str) else None


def _command_id(request: Request, wishes: Wishes) -> UUID:
    return uuid7() if wishes.key is None else derive_command_id(get_caller(request).user_id, wishes.key)


_ETAG: Final = {"ETag": 'The version after the change, such as `"v8"`'}
_APPLIED: Final = {
    "X-Command-Id": "The id of the change; `/v1/commands/{id}` shows its status",
    "Preference-Applied": "Which part of `Prefer` was honored",
}
_ACCEPTED: Final = {
    **describe_success(
        "Kafka has the change, and it will be decided: returned because of `Prefer`, or because the outcome "
        "took too long",
        "CommandStatus",
        {"Location": "Where to find its outcome", "Retry-After": "Seconds", **_APPLIED},
    )
}
_OF_ALL: Final = (
    ProblemType.FORBIDDEN,
    HttpProblem.MEDIA_TYPE,
    ProblemType.INVALID_FIELDS,
    ProblemType.COMMAND_ID_REUSED,
    ProblemType.QUEUE_FULL,
    ProblemType.PARKED,
    ProblemType.DISCARDED,
    ProblemType.ERASED,
)


def _documented(done: int, shown: dict[str, Any], *conflicts: str, existing: bool = True) -> dict[str, Any]:
    """Every status of one operation."""
    own: tuple[str, ...] = (ProblemType.NOT_FOUND, ProblemType.PRECONDITION) if existing else ()
    also = {412: ProblemType.PRECONDITION}
    return {"responses": {done: shown, 202: _ACCEPTED, **describe_problems(*_OF_ALL, *own, *conflicts, also=also)}}


def make_router(changing: Changing) -> APIRouter:
    """The operations with their documentation."""
    routes = APIRouter(prefix="/v1", default_response_class=Response, tags=["organizations"])
    name_taken, deactivated = ProblemType.NAME_TAKEN, ProblemType.DEACTIVATED
    changed = describe_success("The organization as it is now", "Organization", {**_ETAG, **_APPLIED})
    optional = describe_body("Precondition", JSON, required=False)
    created = describe_success(
        "The organization was created", "Organization", {"Location": "Where the organization is", **_ETAG, **_APPLIED}
    )
    routes.post(
        "/orgs",
        summary="Create an organization",
        status_code=201,
        openapi_extra=describe_body("NewOrganization", JSON, required=True),
        **_documented(201, created, name_taken, ProblemType.ALREADY_EXISTS, existing=False),
    )(changing.create)
    routes.patch(
        "/orgs/{org_id}",
        summary="Change an organization",
        openapi_extra=describe_body("OrganizationChange", JSON, MERGE_PATCH, required=True),
        **_documented(200, changed, name_taken, deactivated),
    )(changing.update)
    routes.delete(
        "/orgs/{org_id}",
        summary="Delete an organization",
        status_code=204,
        openapi_extra=optional,
        **_documented(
            204, {"description": "The organization is deleted", **describe_headers(_APPLIED)}, ProblemType.STILL_PARTNER
        ),
    )(changing.delete)
    for name, summary, handler, conflicts in (
        ("deactivate", "Deactivate an organization", changing.deactivate, ()),
        ("reactivate", "Reactivate an organization", changing.reactivate, ()),
        ("restore", "Restore a deleted organization", changing.restore, (name_taken,)),
    ):
        routes.post(
            f"/orgs/{{org_id}}/{name}",
            summary=summary,
            openapi_extra=optional,
            **_documented(200, changed, *conflicts),
        )(handler)
    return routes
