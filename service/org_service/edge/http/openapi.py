"""What the OpenAPI document says of each operation: every status, with an example that the code itself makes."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from org_events.commands import UpdateOrganization
from org_events.organization import Domain
from org_events.reference import Role
from org_events.results import ProblemType
from org_service.domain import details
from org_service.domain.policy import UPDATE
from org_service.edge.http.bodies import OTHER_MEDIA_TYPE, unsupported_media_type
from org_service.edge.http.limits import too_large, too_many
from org_service.edge.http.models import Limit, make_json_schemas
from org_service.edge.http.problems import (
    TITLES,
    HttpProblem,
    ProblemError,
    Wrong,
    dependency_unavailable,
    internal_error,
    key_reused,
    malformed,
    method_not_allowed,
    no_such_command,
    no_token,
    not_found,
    version_not_named,
    wrong_parameters,
)
from org_service.serving.framing import head_too_large
from org_service.settings import EdgeSettings, WorkerSettings

Responses = dict[int | str, dict[str, Any]]

ORG_ID: Final = "0198c1f2-6a7e-4c1b-9d3e-5f6071829304"
COMMAND_ID: Final = "5b0f2a7c-94d6-5e0a-8c11-7f1e2d3c4b5a"
_VERSION: Final = 7
_PROBLEM_REF: Final = {"$ref": "#/components/schemas/HttpProblem"}


def _find_wrong(path: str, kind: Any, value: object) -> Wrong:
    """What the model says of a wrong value."""
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return Wrong(path, error.errors()[0]["type"], error.errors()[0]["msg"])
    raise AssertionError(f"{value!r} is a good {path}")


def _make_examples() -> list[ProblemError]:
    """A rejection of each kind, as the edge or the worker makes it."""
    edge, worker = EdgeSettings(), WorkerSettings()
    wrong_domain = _find_wrong("domain", Domain, "acme")
    too_long_head = head_too_large(edge.header_bytes_max)
    return [
        wrong_parameters([_find_wrong("limit", Limit, 500)]),
        no_token(),
        ProblemError(ProblemType.FORBIDDEN, details.denied(Role.USER, UPDATE)),
        not_found(),
        no_such_command(),
        method_not_allowed(["GET", "HEAD", "POST"]),
        ProblemError(ProblemType.NAME_TAKEN, details.NAME_TAKEN),
        ProblemError(ProblemType.ALREADY_EXISTS, details.ALREADY_EXISTS),
        ProblemError(ProblemType.DEACTIVATED, details.DEACTIVATED),
        ProblemError(ProblemType.STILL_PARTNER, details.STILL_PARTNER),
        ProblemError(ProblemType.QUEUE_FULL, details.queue_full(worker.queued_commands_max)),
        ProblemError(ProblemType.PRECONDITION, details.other_version(_VERSION - 1, _VERSION)),
        version_not_named(_VERSION),
        too_large(edge.body_bytes_max),
        unsupported_media_type(OTHER_MEDIA_TYPE, patch=False),
        ProblemError(
            ProblemType.INVALID_FIELDS, details.wrong_fields(1, UpdateOrganization.type), errors=[wrong_domain]
        ),
        key_reused(),
        too_many(1),
        malformed(too_long_head.status, too_long_head.detail),
        internal_error(),
        ProblemError(ProblemType.PARKED, details.PARKED),
        ProblemError(ProblemType.DISCARDED, details.DISCARDED),
        ProblemError(ProblemType.ERASED, details.ERASED),
        dependency_unavailable(),
    ]


_EXAMPLES: Final[Mapping[tuple[int, str], Mapping[str, Any]]] = {
    (each.status, each.problem["type"]): each.problem for each in _make_examples()
}
"""The body of each rejection, by status and problem type."""
_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer, with the reason if a token was sent (RFC 6750)"},
    405: {"Allow": "The methods that the path supports"},
    429: {"Retry-After": "Seconds"},
    503: {"Retry-After": "Seconds"},
}
_EVERYWHERE: Final = (
    HttpProblem.BAD_REQUEST,
    ProblemType.UNAUTHENTICATED,
    HttpProblem.METHOD_NOT_ALLOWED,
    HttpProblem.BODY_TOO_LARGE,
    HttpProblem.TOO_MANY_REQUESTS,
    HttpProblem.HEADERS_TOO_LARGE,
    HttpProblem.INTERNAL,
    HttpProblem.UNAVAILABLE,
)


def describe_problems(*types: str, also: Mapping[int, str] | None = None) -> Responses:
    """The rejections of one operation: those given, and those of every operation.

    Args:
        types: Problem types, beside those that any request may get.
        also: Problem types under another status than their own.
    """
    by_status: dict[int, list[str]] = {}
    for each in (*types, *_EVERYWHERE):
        by_status.setdefault(TITLES[each][0], []).append(each)
    for status, each in (also or {}).items():
        by_status.setdefault(status, []).append(each)
    return {status: _describe_status(status, names) for status, names in sorted(by_status.items())}


def _describe_status(status: int, types: list[str]) -> dict[str, Any]:
    examples = {each.rpartition(":")[2]: {"value": _EXAMPLES[status, each]} for each in types}
    return {
        "description": "; ".join(TITLES[each][1] for each in types),
        "content": {"application/problem+json": {"schema": _PROBLEM_REF, "examples": examples}},
        **describe_headers(_HEADERS.get(status, {})),
    }


def describe_headers(described: Mapping[str, str]) -> dict[str, Any]:
    """The headers of a response, each a text."""
    if not described:
        return {}
    return {"headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}}


def describe_success(description: str, model: str | None, described: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A response that is not a rejection.

    Args:
        description: When.
        model: Name of its schema; None has no body.
        described: Its headers.
    """
    content: dict[str, Any] = {}
    if model is not None:
        content = {"content": {"application/json": _content(model)}}
    return {"description": description, **content, **describe_headers(described or {})}


def describe_body(model: str, *media_types: str, required: bool) -> dict[str, Any]:
    """The body of a request."""
    return {"requestBody": {"required": required, "content": dict.fromkeys(media_types, _content(model))}}


def _content(model: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model}"}}


def complete_document(document: dict[str, Any]) -> dict[str, Any]:
    """The framework's document with our schemas, and without the answers that it would give but we don't."""
    components = document.setdefault("components", {})
    components["schemas"] = dict(sorted(make_json_schemas().items()))
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    document["security"] = [{"token": []}]
    for operations in document["paths"].values():
        for operation in operations.values():
            added = operation["responses"].get("422", {}).get("content", {}).get("application/json")
            if added is not None:
                del operation["responses"]["422"]
            operation["responses"] = dict(sorted(operation["responses"].items()))
            for described in (operation.get("requestBody", {}), *operation["responses"].values()):
                for content in described.get("content", {}).values():
                    model = content["schema"].get("$ref", "").rpartition("/")[2]
                    if model in EXAMPLES:  # here and not before, because the framework leaves out what is null
                        content["example"] = EXAMPLES[model]
    return document


_ADDRESS: Final = {
    "line1": "Karl Johans gate 1",
    "line2": None,
    "city": "Oslo",
    "region": None,
    "postal_code": "0154",
    "country": "NO",
}
_ORGANIZATION: Final = {
    "id": ORG_ID,
    "name": "Acme",
    "domain": "acme.com",
    "created_at": "2026-03-01T12:00:00Z",
    "updated_at": "2026-03-02T09:30:00Z",
    "primary_address": _ADDRESS,
    "deactivated": False,
    "deactivated_at": None,
    "version": _VERSION,
}
_BEFORE: Final = {**_ORGANIZATION, "domain": None, "version": _VERSION - 1, "updated_at": "2026-03-01T12:00:00Z"}
_ROLE: Final[Mapping[str, Any]] = {"role": "admin", "access": "direct", "denied_actions": []}
EXAMPLES: Final[Mapping[str, Any]] = {
    "Organization": _ORGANIZATION,
    "SeenOrganization": {**_ORGANIZATION, **_ROLE},
    "OrganizationList": {
        "organizations": [
            {"id": ORG_ID, "name": "Acme", "domain": "acme.com", "deactivated": False, **_ROLE, "is_default": True}
        ],
        "next": None,
    },
    "History": {
        "changes": [
            {
                "version": _VERSION,
                "position": 40213,
                "type": "org.updated",
                "changed": ["domain"],
                "before": _BEFORE,
                "after": _ORGANIZATION,
                "command_id": COMMAND_ID,
                "actor": "ann",
                "recorded_at": "2026-03-02T09:30:00Z",
            }
        ],
        "next": None,
    },
    "CommandStatus": {
        "command_id": COMMAND_ID,
        "status": "applied",
        "code": 200,
        "org_id": ORG_ID,
        "version": _VERSION,
        "position": 40213,
        "organization": _ORGANIZATION,
        "changed": ["domain"],
        "problem": None,
    },
    "OrganizationChange": {"domain": "acme.com"},
    "NewOrganization": {"name": "Acme", "domain": "acme.com"},
    "Precondition": {"expected_version": _VERSION},
}
