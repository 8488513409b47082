"""What the OpenAPI document says of each operation: every status, with an example."""

from collections.abc import Mapping
from typing import Any, Final

from org_events.results import ProblemType
from org_service.edge.http.models import json_schemas
from org_service.edge.http.problems import NOT_FOUND_DETAIL, TITLES, HttpProblem

Responses = dict[int | str, dict[str, Any]]

ORG_ID: Final = "0198c1f2-6a7e-4c1b-9d3e-5f6071829304"
COMMAND_ID: Final = "5b0f2a7c-94d6-5e0a-8c11-7f1e2d3c4b5a"
_PROBLEM_REF: Final = {"$ref": "#/components/schemas/HttpProblem"}
_VERSION_DETAIL: Final = "expected_version is 6, the organization has version 7."

DETAILS: Final[Mapping[str, str]] = {
    HttpProblem.BAD_REQUEST: "A parameter is wrong; see errors.",
    ProblemType.UNAUTHENTICATED: "Send a token: Authorization: Bearer …",
    ProblemType.FORBIDDEN: "The role user is denied Organization:update.",
    ProblemType.NOT_FOUND: NOT_FOUND_DETAIL,
    HttpProblem.NO_SUCH_COMMAND: "There is no command with this id, or it is not yours.",
    HttpProblem.METHOD_NOT_ALLOWED: "This path knows GET, HEAD, POST.",
    ProblemType.NAME_TAKEN: "Another organization has this name; choose another.",
    ProblemType.ALREADY_EXISTS: "An organization with this id exists, or existed; choose another id.",
    ProblemType.DEACTIVATED: "A deactivated organization can only be reactivated or deleted.",
    ProblemType.STILL_PARTNER: "It is still partner of 2 organizations; end these partnerships first.",
    ProblemType.QUEUE_FULL: "1000 commands of this organization wait for an operator already; try again later.",
    ProblemType.PRECONDITION: _VERSION_DETAIL,
    HttpProblem.BODY_TOO_LARGE: "A body may have at most 65536 bytes.",
    HttpProblem.MEDIA_TYPE: "Send application/json.",
    ProblemType.INVALID_FIELDS: "1 field(s) of org.update are wrong; see errors.",
    ProblemType.COMMAND_ID_REUSED: "The Idempotency-Key was used for another request; take a new one.",
    HttpProblem.TOO_MANY_REQUESTS: "Wait 1 s, then go on more slowly.",
    HttpProblem.HEADERS_TOO_LARGE: "The request line and the headers may have at most 16384 bytes.",
    HttpProblem.INTERNAL: "It is in the service's log under the id in X-Request-Id.",
    ProblemType.PARKED: "The service could not decide; the command is kept and an operator will.",
    HttpProblem.UNAVAILABLE: "Something the service needs doesn't answer; nothing was decided. Try again.",
}
_ERRORS: Final[Mapping[str, Any]] = {
    HttpProblem.BAD_REQUEST: [
        {"path": "limit", "code": "less_than_equal", "message": "Input should be less than or equal to 200"}
    ],
    ProblemType.INVALID_FIELDS: [
        {"path": "domain", "code": "too_few_labels", "message": "Must be a domain name of two labels or more"}
    ],
}
_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    401: {"WWW-Authenticate": "Bearer, with the reason where a token was given (RFC 6750)"},
    405: {"Allow": "Every method that the path knows"},
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


def problems(*types: str, also: Mapping[int, str] | None = None) -> Responses:
    """The refusals of one operation: those given, and those of every operation.

    Args:
        types: Problem types, beside those that any request may get.
        also: Problem types under another status than their own.
    """
    by_status: dict[int, list[str]] = {}
    for each in (*types, *_EVERYWHERE):
        by_status.setdefault(TITLES[each][0], []).append(each)
    for status, each in (also or {}).items():
        by_status.setdefault(status, []).append(each)
    return {status: _refusals(status, names) for status, names in sorted(by_status.items())}


def _refusals(status: int, types: list[str]) -> dict[str, Any]:
    examples = {
        each.rpartition(":")[2]: {
            "value": {
                "type": str(each),
                "title": TITLES[each][1],
                "status": status,
                "detail": DETAILS[each],
                "errors": _ERRORS.get(each, []),
            }
        }
        for each in types
    }
    return {
        "description": "; ".join(TITLES[each][1] for each in types),
        "content": {"application/problem+json": {"schema": _PROBLEM_REF, "examples": examples}},
        **headers(_HEADERS.get(status, {})),
    }


def headers(described: Mapping[str, str]) -> dict[str, Any]:
    """The headers of a response, each a text."""
    return (
        {"headers": {name: {"description": text, "schema": {"type": "string"}} for name, text in described.items()}}
        if described
        else {}
    )


def success(description: str, model: str | None, described: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A response that is no refusal.

    Args:
        description: When.
        model: Name of its schema; None has no body.
        described: Its headers.
    """
    content: dict[str, Any] = {}
    if model is not None:
        content = {"content": {"application/json": _content(model)}}
    return {"description": description, **content, **headers(described or {})}


def body(model: str, *media_types: str, required: bool) -> dict[str, Any]:
    """The body of a request."""
    return {"requestBody": {"required": required, "content": dict.fromkeys(media_types, _content(model))}}


def _content(model: str) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model}"}}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The framework's document with our schemas, and without the answers that it would give but we don't."""
    components = document.setdefault("components", {})
    components["schemas"] = dict(sorted(json_schemas().items()))
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
    "version": 7,
}
_BEFORE: Final = {**_ORGANIZATION, "domain": None, "version": 6, "updated_at": "2026-03-01T12:00:00Z"}
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
                "version": 7,
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
        "version": 7,
        "position": 40213,
        "organization": _ORGANIZATION,
        "changed": ["domain"],
        "problem": None,
    },
    "OrganizationChange": {"domain": "acme.com"},
    "NewOrganization": {"name": "Acme", "domain": "acme.com"},
    "Precondition": {"expected_version": 7},
}
