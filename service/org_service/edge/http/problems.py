"""Rejections over HTTP (RFC 9457): what the worker says, and what only HTTP knows. Status names live here alone."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson

from org_events.results import PROBLEMS, ProblemType
from org_service.domain import details
from org_service.domain.policy import READ

PROBLEM_JSON: Final = b"application/problem+json"
RETRY_AFTER_S: Final = 1
"""What a client is asked to wait while something is down: outages of a restart are over in a few seconds."""

HttpHeaders = list[tuple[bytes, bytes]]


class HttpProblem(StrEnum):
    """Why a request failed before or beside any command; stable, as `ProblemType` is."""

    BAD_REQUEST = "urn:orgs:problem:bad-request"
    NO_SUCH_PATH = "urn:orgs:problem:no-such-path"
    NO_SUCH_COMMAND = "urn:orgs:problem:no-such-command"
    COMMAND_EXPIRED = "urn:orgs:problem:command-expired"
    METHOD_NOT_ALLOWED = "urn:orgs:problem:method-not-allowed"
    REQUEST_TIMEOUT = "urn:orgs:problem:request-timeout"
    BODY_TOO_LARGE = "urn:orgs:problem:body-too-large"
    MEDIA_TYPE = "urn:orgs:problem:unsupported-media-type"
    MISDIRECTED = "urn:orgs:problem:misdirected-request"
    ORIGIN_NOT_ALLOWED = "urn:orgs:problem:origin-refused"
    TOO_MANY_REQUESTS = "urn:orgs:problem:too-many-requests"
    HEADERS_TOO_LARGE = "urn:orgs:problem:headers-too-large"
    INTERNAL = "urn:orgs:problem:internal-error"
    UNAVAILABLE = "urn:orgs:problem:unavailable"


TITLES: Final[Mapping[str, tuple[int, str]]] = {
    **PROBLEMS,
    HttpProblem.BAD_REQUEST: (400, "The request is malformed"),
    HttpProblem.NO_SUCH_PATH: (404, "Path not found"),
    HttpProblem.NO_SUCH_COMMAND: (404, "Command not found"),
    HttpProblem.COMMAND_EXPIRED: (410, "The command was lost before it was decided"),
    HttpProblem.METHOD_NOT_ALLOWED: (405, "The path does not support this method"),
    HttpProblem.REQUEST_TIMEOUT: (408, "The request took too long"),
    HttpProblem.BODY_TOO_LARGE: (413, "The body is too large"),
    HttpProblem.MEDIA_TYPE: (415, "The media type of the body is not supported"),
    HttpProblem.MISDIRECTED: (421, "The host does not belong to this service"),
    HttpProblem.ORIGIN_NOT_ALLOWED: (403, "The origin is not allowed"),
    HttpProblem.TOO_MANY_REQUESTS: (429, "Too many requests"),
    HttpProblem.HEADERS_TOO_LARGE: (431, "The request's headers are too large"),
    HttpProblem.INTERNAL: (500, "Internal error"),
    HttpProblem.UNAVAILABLE: (503, "The service is unavailable"),
}
"""Status and title of every problem type."""


class Wrong(NamedTuple):
    """One wrong part of a request, as `org_events.results.FieldError`."""

    path: str
    code: str
    message: str


class ProblemError(Exception):
    """A request that gets a problem for an answer.

    Args:
        type: Of the problem.
        detail: What was wrong here, and what to do; never a byte of the request.
        status: Where it isn't the type's own.
        errors: Each wrong part.
        headers: Beside those that its status asks for.
        members: More members of the problem.
    """

    def __init__(
        self,
        type: str,  # noqa: A002 - the member's name in RFC 9457
        detail: str,
        *,
        status: int | None = None,
        errors: Sequence[Wrong] = (),
        headers: HttpHeaders | None = None,
        **members: Any,
    ) -> None:
        super().__init__(type)
        usual, title = TITLES[type]
        self.status = usual if status is None else status
        self.headers: HttpHeaders = headers or []
        self.problem: dict[str, Any] = {
            "type": type,
            "title": title,
            "status": self.status,
            "detail": detail,
            "errors": [each._asdict() for each in errors],
            **members,
        }


def wrap_problem(problem: dict[str, Any], status: int, detail: str | None = None) -> ProblemError:
    """The worker's problem as an answer.

    Args:
        problem: As in the result.
        status: HTTP may have another one for it (412).
        detail: Says it in terms of the request's headers.
    """
    error = ProblemError(ProblemType.PARKED, "", status=status)
    error.problem = {**problem, "status": status} if detail is None else {**problem, "status": status, "detail": detail}
    return error


def bad_request(detail: str, errors: Sequence[Wrong] = ()) -> ProblemError:
    """400: something of the request can't be read."""
    return ProblemError(HttpProblem.BAD_REQUEST, detail, errors=errors)


def not_found() -> ProblemError:
    """404: no such organization, or one that the caller can't see: word for word what the worker says."""
    return ProblemError(ProblemType.NOT_FOUND, details.NOT_FOUND)


def denied(role: str | None) -> ProblemError:
    """403: the caller's role may not read the organization."""
    return ProblemError(ProblemType.FORBIDDEN, details.denied(role, READ))


def wrong_parameters(errors: Sequence[Wrong]) -> ProblemError:
    """400: parameters of the path or the query are wrong."""
    return bad_request("A parameter is invalid; see errors.", errors)


def no_such_path() -> ProblemError:
    """404: nothing is at this path."""
    return ProblemError(HttpProblem.NO_SUCH_PATH, "See /docs for all paths.")


def no_such_command() -> ProblemError:
    """404: no such command, or one that is somebody else's."""
    return ProblemError(HttpProblem.NO_SUCH_COMMAND, "There is no command with this id, or it is not yours.")


def method_not_allowed(methods: Sequence[str]) -> ProblemError:
    """405: the path knows only these methods."""
    allowed = ", ".join(methods)
    return ProblemError(
        HttpProblem.METHOD_NOT_ALLOWED, f"This path supports {allowed}.", headers=[(b"allow", allowed.encode())]
    )


def key_reused() -> ProblemError:
    """422: the `Idempotency-Key` belongs to another request."""
    return ProblemError(ProblemType.COMMAND_ID_REUSED, "The Idempotency-Key belongs to another request; use a new one.")


def no_token() -> ProblemError:
    """401: the request names nobody."""
    return unauthenticated("Send a token: Authorization: Bearer …", token_given=False)


def unauthenticated(detail: str, *, token_given: bool) -> ProblemError:
    """401 (RFC 6750, section 3: the reason only where a token was given)."""
    challenge = b'Bearer error="invalid_token"' if token_given else b"Bearer"
    return ProblemError(ProblemType.UNAUTHENTICATED, detail, headers=[(b"www-authenticate", challenge)])


def unavailable(detail: str, retry_after_s: int = RETRY_AFTER_S, **members: Any) -> ProblemError:
    """503: nothing was decided."""
    return ProblemError(HttpProblem.UNAVAILABLE, detail, headers=[(b"retry-after", b"%d" % retry_after_s)], **members)


def dependency_unavailable() -> ProblemError:
    """503: Kafka or Postgres doesn't answer."""
    return unavailable("The service is temporarily unavailable; nothing was decided. Try again.")


def internal_error() -> ProblemError:
    """500: a defect; the answer tells nothing but where to look."""
    return ProblemError(HttpProblem.INTERNAL, "The service has logged it under the id in X-Request-Id.")


def version_not_named(version: int | None) -> ProblemError:
    """412: `If-Match` doesn't let this version of the organization through."""
    detail = f"If-Match does not name version {version}, which the organization has."
    return ProblemError(ProblemType.PRECONDITION, detail, status=412)


def malformed(status: int, detail: str) -> ProblemError:
    """400, 431, 501 or 505: it can't be read as a request of HTTP/1.1."""
    kind = HttpProblem.HEADERS_TOO_LARGE if status == 431 else HttpProblem.BAD_REQUEST
    return ProblemError(kind, detail, status=status)


def answer_malformed(status: int, detail: str) -> tuple[int, HttpHeaders, bytes]:
    """The answer to what can't be read as a request, as a server wants it."""
    return answer(malformed(status, detail))


def answer(error: ProblemError) -> tuple[int, HttpHeaders, bytes]:
    """Status, headers and body."""
    body = orjson.dumps(error.problem)
    headers = [
        (b"content-type", PROBLEM_JSON),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"vary", b"Authorization"),
        *error.headers,
    ]
    if error.status == 401 and not any(name == b"www-authenticate" for name, _ in error.headers):
        headers.append((b"www-authenticate", b'Bearer error="invalid_token"'))
    return error.status, headers, body
