"""The operations that change: a request becomes a command, and the command's outcome the answer.

Only what makes no command at all is refused here (400, 413, 415). Whether the caller may, whether the fields are right
and whether preconditions hold, the worker says, in its order: 404, 403, 422, 409.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Any, Final, NamedTuple, cast
from uuid import UUID, uuid4

import orjson
from fastapi import APIRouter, Depends, Header, Request, Response

from org_events.commands import (
    PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.results import Outcome, ProblemType
from org_service.domain.body import depth
from org_service.edge.commands import Body, Change, Commands, Decided, Pending
from org_service.edge.documents import body, headers, problems, success
from org_service.edge.gate import BODY
from org_service.edge.limits import too_large
from org_service.edge.problems import (
    RETRY_AFTER_S,
    HttpProblem,
    Refusal,
    Wrong,
    bad_request,
    decided,
    not_found,
)
from org_service.edge.reading import JSON, OrgId, caller_of, pending, read_id
from org_service.edge.request_headers import command_id_for, etag, expected_versions, preference

MERGE_PATCH: Final = "application/merge-patch+json"
_MEDIA_TYPE: Final = re.compile(r'([\w.+-]+/[\w.+-]+)\s*(?:;\s*charset="?utf-8"?\s*)?', re.IGNORECASE)

_TAG: Final = r'(W/)?"[!#-~]*"'
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description='ETags of the versions to change, as in `"v7"`; 412 for others',
        json_schema_extra={"pattern": rf"^(\*|{_TAG}(, ?{_TAG}){{0,9}})$"},
        examples=['"v7"'],
    ),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes repeating safe: the same key is the same change, and gets the first answer again",
        json_schema_extra={"pattern": r"""^([!#-~]{1,255}|"[!#-~]{1,255}")$"""},
        examples=["3f1c"],
    ),
]
Prefer = Annotated[str | None, Header(alias="Prefer", description="`respond-async`, or `wait=N` seconds; then 202")]


def derived_org_id(command_id: UUID) -> UUID:
    """The id of an organization whose creator chose none: the same for the same command, in the form of version 4."""
    digest = blake2b(b"org\0" + command_id.bytes, digest_size=16).digest()
    return UUID(bytes=digest, version=4)


def read_object(content: bytes, content_type: str | None, encoding: str | None, *, patch: bool) -> dict[str, Any]:
    """The JSON object of a request's body.

    Raises:
        Refusal: It has another media type (415), or is no such object (400).
    """
    taken = (JSON, MERGE_PATCH) if patch else (JSON,)
    found = _MEDIA_TYPE.fullmatch(content_type or "")
    if found is None or found[1].lower() not in taken or (encoding or "identity").lower() != "identity":
        accepted: list[tuple[bytes, bytes]] = [(b"accept-patch", ", ".join(taken).encode())] if patch else []
        raise Refusal(
            HttpProblem.MEDIA_TYPE,
            f"Send {' or '.join(taken)}, in UTF-8 and without content-encoding.",
            headers=accepted,
        )
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"The body is no JSON: {error.msg} at character {error.pos}.") from error
    if not isinstance(parsed, dict):
        raise bad_request("The body must be a JSON object.")
    if content.count(b"{") + content.count(b"[") > PAYLOAD_DEPTH_MAX and depth(parsed) > PAYLOAD_DEPTH_MAX:
        raise bad_request(f"The body nests deeper than {PAYLOAD_DEPTH_MAX}.")
    return cast("dict[str, Any]", parsed)


def command_bodies(fields: Mapping[str, Any], org_id: UUID, versions: tuple[int, ...] | None) -> Sequence[Body]:
    """The bodies of a command, one for each version that `If-Match` lists; canonical, so a repetition is the same.

    Raises:
        Refusal: The body names another organization, or the version is said twice (400); it is too large (413).
    """
    named = fields.get("org_id")
    if named is not None and (not isinstance(named, str) or named.lower() != str(org_id)):
        raise bad_request("org_id must be the one of the path.", [Wrong("org_id", "other_org_id", "Leave it out")])
    whole = {**fields, "org_id": str(org_id)}
    if versions is not None and "expected_version" in fields:
        raise bad_request("Say the version once: with If-Match or with expected_version.")
    bodies = (
        [Body(_canonical(whole))]
        if versions is None
        else [Body(_canonical({**whole, "expected_version": version}), version) for version in versions]
    )
    if any(len(each.value) > PAYLOAD_BYTES_MAX for each in bodies):
        raise too_large(PAYLOAD_BYTES_MAX)
    return bodies


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


class Wishes(NamedTuple):
    """Headers of a request that changes something."""

    key: str | None
    prefer: str | None
    if_match: str | None = None


async def _wishes(idempotency_key: IdempotencyKey = None, prefer: Prefer = None) -> Wishes:
    return Wishes(idempotency_key, prefer)


async def _guarded(if_match: IfMatch = None, idempotency_key: IdempotencyKey = None, prefer: Prefer = None) -> Wishes:
    return Wishes(idempotency_key, prefer, if_match)


Guarded = Annotated[Wishes, Depends(_guarded)]


class Changing:
    """The handlers.

    Args:
        commands: Publishes, and knows outcomes.
        wait_max_s: For an outcome; then 202.
    """

    def __init__(self, commands: Commands, wait_max_s: float) -> None:
        self._commands = commands
        self._wait_max_s = wait_max_s

    async def create(self, request: Request, wishes: Annotated[Wishes, Depends(_wishes)]) -> Response:
        """Create an organization, under an id of your choice if you give one."""
        fields = _object(request, patch=False)
        wanted = fields.pop("id", None)
        command_id = _command_id(request, wishes)
        org_id = derived_org_id(command_id) if wanted is None else read_id(wanted) if isinstance(wanted, str) else None
        if org_id is None:
            raise bad_request("id must be a UUID of 36 characters.", [Wrong("id", "not_a_uuid", "Give a UUID")])
        change = self._change(CreateOrganization.type, org_id, command_id, command_bodies(fields, org_id, None), wishes)
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
        versions = expected_versions(wishes.if_match)
        command_id = _command_id(request, wishes)
        wanted = read_id(org_id)
        if wanted is None:
            raise not_found()
        change = self._change(command_type, wanted, command_id, command_bodies(fields, wanted, versions), wishes)
        return await self._answer(request, change, wishes, status)

    def _change(
        self, command_type: str, org_id: UUID, command_id: UUID, bodies: Sequence[Body], wishes: Wishes
    ) -> Change:
        wait_s = preference(wishes.prefer, self._wait_max_s).wait_s
        return Change(command_type, org_id, command_id, bodies, repeatable=wishes.key is not None, wait_s=wait_s)

    async def _answer(self, request: Request, change: Change, wishes: Wishes, status: int) -> Response:
        outcome = await self._commands.execute(caller_of(request), change)
        applied = preference(wishes.prefer, self._wait_max_s).applied
        preferred = {} if applied is None else {"preference-applied": applied.decode()}
        if isinstance(outcome, Pending):
            location = {"location": f"/v1/commands/{change.command_id}", "retry-after": str(RETRY_AFTER_S)}
            return pending(change.command_id, change.org_id, 202, {**location, **preferred})
        return _answered(outcome, status, preferred)


def _object(request: Request, *, patch: bool) -> dict[str, Any]:
    given = request.headers
    return read_object(request.scope[BODY], given.get("content-type"), given.get("content-encoding"), patch=patch)


def _command_id(request: Request, wishes: Wishes) -> UUID:
    return uuid4() if wishes.key is None else command_id_for(caller_of(request).user_id, wishes.key)


def _answered(outcome: Decided, status: int, headers: dict[str, str]) -> Response:
    """The answer to a change that was decided; the same whenever it is asked for.

    Raises:
        Refusal: The worker refused or parked it.
    """
    if outcome.problem is not None:
        raise _refused(outcome, outcome.problem)
    if outcome.version is not None and outcome.organization is not None:
        headers = {**headers, "etag": etag(outcome.version).decode()}
    if status == 201:
        headers = {**headers, "location": f"/v1/orgs/{outcome.org_id}"}
    if status == 204:
        return Response(status_code=204, headers=headers)
    return Response(outcome.organization, status, headers, media_type=JSON)


def _refused(outcome: Decided, problem: dict[str, Any]) -> Refusal:
    if outcome.outcome == Outcome.PARKED:
        refusal = decided({**problem, "command_id": str(outcome.command_id)}, 500)
        refusal.headers = [(b"location", f"/v1/commands/{outcome.command_id}".encode())]
        return refusal
    expected = outcome.body.expected_version
    if problem["type"] == ProblemType.PRECONDITION and expected is not None and expected != outcome.version:
        return decided(problem, 412, f"If-Match doesn't name version {outcome.version}, which the organization has.")
    return decided(problem, outcome.code)


_ETAG: Final = {"ETag": 'The version after it, as in `"v8"`'}
_APPLIED: Final = {"Preference-Applied": "Which `Prefer` was followed"}
_ACCEPTED: Final = {
    **success(
        "Kafka has the change, and it will be decided: because of `Prefer`, or because it took too long",
        "CommandStatus",
        {"Location": "Where its outcome will be", "Retry-After": "Seconds", **_APPLIED},
    )
}
_OF_ALL: Final = (
    ProblemType.FORBIDDEN,
    HttpProblem.MEDIA_TYPE,
    ProblemType.INVALID_FIELDS,
    ProblemType.COMMAND_ID_REUSED,
    ProblemType.PARKED,
)


def _documented(done: int, shown: dict[str, Any], *conflicts: str, existing: bool = True) -> dict[str, Any]:
    """Every status of one operation."""
    own: tuple[str, ...] = (ProblemType.NOT_FOUND, ProblemType.PRECONDITION) if existing else ()
    also = {412: ProblemType.PRECONDITION} if existing else None
    return {"responses": {done: shown, 202: _ACCEPTED, **problems(*_OF_ALL, *own, *conflicts, also=also)}}


def router(changing: Changing) -> APIRouter:
    """The operations with their documentation."""
    routes = APIRouter(prefix="/v1", default_response_class=Response, tags=["organizations"])
    name_taken, deactivated = ProblemType.NAME_TAKEN, ProblemType.DEACTIVATED
    changed = success("As it is now", "Organization", {**_ETAG, **_APPLIED})
    optional = body("Precondition", JSON, required=False)
    created = success("It was created", "Organization", {"Location": "Where it is", **_ETAG, **_APPLIED})
    routes.post(
        "/orgs",
        summary="Create an organization",
        status_code=201,
        openapi_extra=body("NewOrganization", JSON, required=True),
        **_documented(201, created, name_taken, ProblemType.ALREADY_EXISTS, existing=False),
    )(changing.create)
    routes.patch(
        "/orgs/{org_id}",
        summary="Change an organization",
        openapi_extra=body("OrganizationChange", JSON, MERGE_PATCH, required=True),
        **_documented(200, changed, name_taken, deactivated),
    )(changing.update)
    routes.delete(
        "/orgs/{org_id}",
        summary="Delete an organization",
        status_code=204,
        openapi_extra=optional,
        **_documented(204, {"description": "It is deleted", **headers(_APPLIED)}, ProblemType.STILL_PARTNER),
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
