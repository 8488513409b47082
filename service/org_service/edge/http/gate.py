"""What every request passes: who asks, within which bounds, under which id; and the answer when something goes wrong.

One layer of plain ASGI around the router, because layers cost time: a request has about a millisecond. Nothing below
it writes a problem: whatever is raised there, ours or the framework's, becomes one here. A 500 tells nothing but the
request's id, under which the log has the rest.
"""

import re
import secrets
import time
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from org_service.auth.tokens import TokenRejected, Tokens, parse_bearer
from org_service.edge.http.limits import WAIT_S, Buckets, Disconnected, read_body, too_many
from org_service.edge.http.problems import (
    ProblemError,
    Wrong,
    answer,
    bad_request,
    dependency_unavailable,
    internal_error,
    method_not_allowed,
    no_such_path,
    no_token,
    unauthenticated,
    unavailable,
    wrong_parameters,
)
from org_service.edge.http.request_headers import RequestHeaders
from org_service.errors import RetryError
from org_service.serving.exchange import CONNECTION, Asgi, Message, Receive, Scope, Send
from org_service.settings import EdgeSettings
from org_service.store.failures import classify
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import HTTP_IN_FLIGHT, HTTP_REQUESTS, HTTP_SECONDS
from org_service.telemetry.tracing import TRACE, TRACEPARENT, active, end_request

log = get_logger(__name__)

CALLER: Final = "orgs.caller"
"""Where a scope keeps its `Caller`."""
BODY: Final = "orgs.body"
"""Where a scope keeps the whole body."""
_BEGAN: Final = "orgs.began"
"""Where a scope keeps when its request came."""
_SPAN: Final = "orgs.span"
"""Where a scope keeps the request's span, if there is one."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""In a path: a router that looks for the end of a line takes `/mcp%0A` for `/mcp`."""
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Caller(NamedTuple):
    """Who asks."""

    user_id: str
    token: str


class _Routes(Protocol):
    def methods_at(self, path: str) -> list[str]: ...

    def check_body(self, scope: Scope, headers: RequestHeaders) -> None:
        """Reject a body that nothing at this path reads, before it is read (404, 405, 415)."""
        ...


class Gate:
    """The ASGI application around the router.

    Args:
        inner: Gets only requests that may continue.
        settings: Bounds.
        tokens: Names the caller.
        routes: Which methods a path knows, and which bodies.
        public: Paths that anybody may GET, exactly as written; for everything else one must be known.
    """

    def __init__(
        self, inner: Asgi, settings: EdgeSettings, tokens: Tokens, routes: _Routes, public: AbstractSet[str]
    ) -> None:
        self._inner = inner
        self._settings = settings
        self._tokens = tokens
        self._routes = routes
        self._public = public
        self._buckets = Buckets(settings.rate_per_s, settings.rate_burst)
        self._in_flight = 0
        self._counted: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = scope[_BEGAN] = time.perf_counter()
        headers = RequestHeaders(scope["headers"])
        request_id = headers.request_id or secrets.token_hex(16)
        structlog.contextvars.bind_contextvars(request_id=request_id)
        id_header = (b"x-request-id", request_id.encode())
        method, status = scope["method"], 0

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], id_header]
            await send(message)

        try:
            await self._pass(scope, headers, receive, respond)
        except Disconnected:
            status = 499
        except Exception as error:
            problem = self._problem_of(error, scope)
            if status:
                raise
            status, raw, body = answer(problem)
            await send({"type": "http.response.start", "status": status, "headers": [*raw, id_header]})
            await send({"type": "http.response.body", "body": body})
        finally:
            self._count(scope, method, status, time.perf_counter() - began)

    async def _pass(self, scope: Scope, headers: RequestHeaders, receive: Receive, send: Send) -> None:
        """Let a request through once it is known who sent it; only then its body is read, and it counts."""
        path: str = scope["path"]
        if _CONTROL.search(path):
            raise bad_request("The path must not contain control characters.")
        if self._is_public(scope):
            await self._let_in(scope, receive, send)
            return
        if headers.authorization_repeated:
            raise unauthenticated("Send exactly one Authorization header.", token_given=True)
        caller = scope[CALLER] = await self._caller(headers.authorization)
        connection = scope.get(CONNECTION)
        if connection is not None:
            connection.known = True
        # What a tool asks of the API comes with 0: the message that called it was counted.
        wait_s = scope.get(WAIT_S)
        inside = wait_s is not None
        if wait_s is None:
            wait_s = scope[WAIT_S] = self._buckets.take(caller.user_id, time.monotonic())
        if wait_s and (scope["method"], path) != ("POST", "/mcp"):  # there it depends on what the message asks
            raise too_many(wait_s)
        self._trace(scope, headers.traceparent, inside=inside)
        body = b""
        if headers.has_body:
            self._routes.check_body(scope, headers)
            body = await read_body(receive, headers.content_length, self._settings.body_bytes_max)
            receive = _replayed(body, receive)
        scope[BODY] = body
        if self._in_flight >= self._settings.concurrency_max:
            raise unavailable(f"{self._settings.concurrency_max} requests are already in flight.")
        self._in_flight += 1
        HTTP_IN_FLIGHT.set(self._in_flight)
        try:
            await self._let_in(scope, receive, send)
        finally:
            self._in_flight -= 1
            HTTP_IN_FLIGHT.set(self._in_flight)

    @staticmethod
    def _trace(scope: Scope, traceparent: str | None, *, inside: bool) -> None:
        """Go on with the trace that a request is part of; only once it is known who sent it."""
        tracing = active()
        if tracing is None:
            TRACEPARENT.set(traceparent)
        else:
            method = _name_of(scope["method"])
            span = tracing.begin_request(method, traceparent, scope[_BEGAN], inside=inside)
            if span is not None:
                scope[_SPAN] = span
        scope[TRACE] = TRACEPARENT.get()

    def _is_public(self, scope: Scope) -> bool:
        path: str = scope["path"]
        return path in self._public and scope["method"] in ("GET", "HEAD") and scope["raw_path"] == path.encode()

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":
            await self._inner(scope, receive, send)
            return
        asked = {**scope, "method": "GET"}  # the server looks at its own scope, and leaves the body out
        await self._inner(asked, receive, send)
        scope["route"] = asked.get("route")

    async def _caller(self, header: bytes | None) -> Caller:
        if header is None:
            raise no_token()
        now = datetime.now(UTC)
        try:
            token = parse_bearer(header)
            user_id = self._tokens.find_known(token, now) or await self._tokens.verify(token, now)
        except TokenRejected as rejected:
            raise unauthenticated(str(rejected), token_given=True) from rejected
        except RetryError as away:  # not logged: anybody may bring it about, and `Keys` has said what is away
            raise unavailable(
                "No known key verifies the token, and newer keys could not be fetched from its issuer yet. Try again."
            ) from away
        return Caller(user_id, token.decode("ascii"))

    def _problem_of(self, error: Exception, scope: Scope) -> ProblemError:
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, RequestValidationError):
            return wrong_parameters([_wrong(each) for each in error.errors()])
        if isinstance(error, HTTPException) and error.status_code == 404:
            return no_such_path()
        if isinstance(error, HTTPException) and error.status_code == 405:
            return method_not_allowed(self._routes.methods_at(scope["path"]))
        outage = classify(error)
        if isinstance(outage, RetryError):
            log.warning("a dependency of a request is unavailable", why=type(error).__name__)
            return dependency_unavailable()
        log.error("a request failed", exc_info=error)
        return internal_error()

    def _count(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "none"
        method = _name_of(method)
        counters = self._counted.get((route, method, status))
        if counters is None:
            counters = (HTTP_REQUESTS.labels(route, method, status), HTTP_SECONDS.labels(route, method))
            self._counted[route, method, status] = counters
        requests, durations = counters
        requests.inc()
        span = scope.get(_SPAN)
        durations.observe(seconds, None if span is None else end_request(span, method, route, status))


def _name_of(method: str) -> str:
    return method if method in _METHODS else "other"


def _wrong(error: dict[str, Any]) -> Wrong:
    return Wrong(".".join(str(part) for part in error["loc"][1:]), error["type"], error["msg"])


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, for what reads it in the framework's way."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay
