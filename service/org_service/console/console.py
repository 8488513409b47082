"""The page as the edge mounts it: an ASGI application that lets in who is staff, and explains what goes wrong.

Its own layer around FastAPI's router, as the API has one: every answer has the same headers, and nothing below it
writes an error. A 500 shows nothing but an id, under which the log has the rest.
"""

import secrets
import time
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse

from org_service.auth.policy import load_policy
from org_service.console import organizations, overview, parking, plans, running, sign_in, traces
from org_service.console.oidc import Provider
from org_service.console.pages import asset, page
from org_service.console.requests import (
    FORM,
    FORM_BYTES_MAX,
    HEADERS,
    PUBLIC,
    ROOT,
    SIGN_IN,
    VISITOR,
    Rejected,
    Sessions,
    is_part,
    own_address,
    read_form,
    see_own,
    see_token,
    where,
)
from org_service.console.sampling import Sampler
from org_service.console.site import Site
from org_service.edge.http.limits import Disconnected, read_body
from org_service.edge.http.problems import ProblemError
from org_service.errors import BadInputError, PreconditionError, RetryError, ServiceError
from org_service.kafka.connection import judge_outage
from org_service.serving.exchange import Message, Receive, Scope, Send
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.store.failures import classify
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import HTTP_REQUESTS, HTTP_SECONDS

log = get_logger(__name__)

_POOL_SIZE: Final = 4
"""Statements of a page take milliseconds, and operators are few."""
_READS: Final = ("GET", "HEAD")


class _Application(FastAPI):
    """FastAPI without layers of its own: what goes wrong comes up to `Console`."""

    def build_middleware_stack(self) -> Any:
        return AsyncExitStackMiddleware(self.router)


class Console:
    """The operators' page; `close` it at the end."""

    path = ROOT

    def __init__(self, settings: Settings) -> None:
        """Make it.

        Raises:
            ConfigurationError: The policy has mistakes.
        """
        pool = settings.database.model_copy(update={"pool_size": _POOL_SIZE})
        database = Database(pool, "operate", autocommit=True)
        self._url = settings.console.url
        self._requests_max = settings.console.requests_max
        self._in_flight = 0
        self._site = Site(
            settings,
            database,
            load_policy(settings.auth),
            Sessions(settings, database),
            Provider(settings),
            Sampler(settings),
        )
        self._app = _make_app(self._site)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began_s, status, request_id = time.perf_counter(), 0, secrets.token_hex(8)
        request = Request(scope, receive)

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *more, (b"x-request-id", request_id.encode())]
            await send(message)

        self._in_flight += 1
        try:
            await self._pass(request, scope, receive, respond)
        except Disconnected:
            status = 499
        except Exception as error:
            if status:
                raise
            await self._explain(request, error, request_id)(scope, receive, respond)
        finally:
            self._in_flight -= 1
            _count(scope, status, time.perf_counter() - began_s)

    async def close(self) -> None:
        """Let go of everything."""
        await self._site.sampler.close()
        await self._site.provider.close()
        await self._site.database.close()

    async def _pass(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through once it is known who sent it, and a change once it is known that a page of ours did."""
        if self._in_flight > self._requests_max:
            raise Rejected(503, "Too much at once", "Too many requests are in flight. Try again in a moment.")
        path = request.url.path
        changes = request.method not in _READS
        if changes and request.method != "POST":
            raise HTTPException(405)
        if not path.startswith(PUBLIC):
            visitor = await self._site.sessions.find(request)
            if visitor is None:
                await self._send_to_sign_in(request)(scope, receive, send)
                return
            scope[VISITOR] = visitor
            if changes:
                see_own(request, self._url)
                length = request.headers.get("content-length", "")
                body = await read_body(receive, int(length) if length.isdigit() else None, FORM_BYTES_MAX)
                scope[FORM] = read_form(body)
                see_token(visitor, scope[FORM])
        elif changes:
            raise HTTPException(405)
        asked = {**scope, "method": "GET"} if request.method == "HEAD" else scope
        await self._app(asked, receive, send)
        scope["route"] = asked.get("route")

    def _send_to_sign_in(self, request: Request) -> Response:
        """To where one signs in, and back from there to where one was."""
        over = "undone" if request.method == "POST" else "expired"
        said = f"&said={over}" if request.cookies.get(self._site.sessions.cookie) else ""
        target = f"{SIGN_IN}?return={quote(where(request), safe='/')}{said}"
        if is_part(request):
            return PlainTextResponse("", headers={"hx-redirect": target, "cache-control": "no-store"})
        return RedirectResponse(target, 303, {"cache-control": "no-store"})

    def _explain(self, request: Request, error: Exception, request_id: str) -> Response:
        status, title, said = _judge(error, request_id)
        if is_part(request):
            # A part that could not be had is asked for again: whoever looks at it all night sees when it can be.
            again = own_address(request) if status == 503 and request.method == "GET" else None
            return page(request, "problem_part", {"title": title, "said": said, "again": again})
        back = where(request) if request.method == "POST" and request.scope.get(VISITOR) else None
        return page(request, "problem", {"title": title, "said": said, "back": back}, status=status)


def _make_app(site: Site) -> FastAPI:
    app = _Application(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    for each in (sign_in, overview, organizations, traces, parking, plans, running):
        app.include_router(each.make_router(site))

    @app.get(f"{ROOT}/static/{{name}}")
    async def static(name: str) -> Response:  # pyright: ignore[reportUnusedFunction] - by its decorator
        found = asset(name)
        if found is None:
            raise HTTPException(404)
        return found

    return app


def _judge(error: Exception, request_id: str) -> tuple[int, str, str]:
    """Status, title and text of what went wrong."""
    match error:
        case Rejected():
            return error.status, error.title, error.said
        case ProblemError():
            return 400, "Not a form", "What was sent is too long, or came too slowly."
        case HTTPException() if error.status_code in (404, 405):
            return error.status_code, "Not here", "There is no such page."
        case BadInputError():
            return 400, "Not understood", str(error)
        case PreconditionError():
            return 409, "Not possible now", str(error)
        case _:
            pass
    trouble = error if isinstance(error, ServiceError) else classify(error)
    if isinstance(trouble, RetryError) or judge_outage(error) is not None:
        log.warning("a dependency of the operators' page is unavailable", why=type(error).__name__)
        return 503, "Not reachable", "Postgres or Kafka can't be reached now. Try again in a moment."
    if isinstance(trouble, ServiceError):
        return 409, "Not possible now", str(trouble)
    log.error("a request of the operators' page failed", request_id=request_id, exc_info=error)
    return 500, "Our mistake", f"Something went wrong in the page itself; the log has it under {request_id}."


def _count(scope: Scope, status: int, seconds: float) -> None:
    route = getattr(scope.get("route"), "path", None) or "console"
    method = scope["method"] if scope["method"] in (*_READS, "POST") else "other"
    HTTP_REQUESTS.labels(route, method, status).inc()
    HTTP_SECONDS.labels(route, method).observe(seconds)
