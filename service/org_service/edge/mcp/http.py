"""MCP at `/mcp` of the edge: streamable HTTP without sessions, on the API inside the process.

Each message counts once for the caller's rate, whatever it asks and whatever becomes of it: the gate takes it. The
requests that a tool makes of the API don't count again. A call of a tool that comes too soon is rejected by the tool,
so that the agent reads it; what else comes too soon gets a 429, as any request.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import httpx2
import orjson
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from org_service.edge.http.bodies import BOM, check_media_type
from org_service.edge.http.gate import BODY
from org_service.edge.http.limits import WAIT_S, too_many
from org_service.edge.http.problems import HttpProblem, ProblemError
from org_service.edge.mcp.server import CALL, make_server
from org_service.serving.exchange import Message, Receive, Scope, Send
from org_service.settings import EdgeSettings

PATH: Final = "/mcp"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PROBLEMS: Final = {
    421: (
        HttpProblem.MISDIRECTED,
        "The Host header names a host that is not known as one of this service. Behind a proxy, set "
        "ORGS_EDGE__PUBLIC_URL to the URL that clients use.",
    ),
    403: (
        HttpProblem.ORIGIN_NOT_ALLOWED,
        "Web pages of this origin are not allowed. To allow it, add it to ORGS_EDGE__CORS_ORIGINS.",
    ),
}


class Mounted:
    """MCP over streamable HTTP, without sessions: any replica answers any request, with JSON."""

    def __init__(self, app: Starlette, edge: EdgeSettings) -> None:
        async def uncounted(scope: Any, receive: Any, send: Any) -> None:
            scope[WAIT_S] = 0
            await app(scope, receive, send)

        self._api = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=uncounted), base_url="http://orgs", timeout=None
        )
        # POST alone: without sessions there is no stream to open with GET, nor one to DELETE.
        self.route = Route(PATH, self, methods=["POST"])
        self._names = TransportSecurityMiddleware(make_transport_security(edge))
        self._sessions = StreamableHTTPSessionManager(
            make_server(self._api), json_response=True, stateless=True, max_request_body_size=edge.body_bytes_max
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, which the gate let in.

        Raises:
            ProblemError: It came by a name or from an origin that isn't known (421, 403), is not JSON (415), or comes
                too soon (429).
        """
        scope["route"] = self.route  # which only FastAPI's routes note by themselves
        body: bytes = scope[BODY]
        wait_s = scope[WAIT_S]
        if wait_s and not _calls_a_tool(body):
            raise too_many(wait_s)
        request = Request(scope)
        answered = await self._names.validate_request(request)
        if answered is not None:
            problem, detail = _PROBLEMS[answered.status_code]
            raise ProblemError(problem, detail)
        check_media_type(request.headers.get("content-type"), request.headers.getlist("content-encoding"), patch=False)
        await self._sessions.handle_request(scope, _without_mark(body, receive), send)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Answer requests inside this block; once, and left by the task that entered it."""
        async with self._api, self._sessions.run():
            yield


def mount(app: Starlette, edge: EdgeSettings) -> Mounted:
    """Put MCP at `/mcp` of the application whose API it calls; `run` must be entered before the first request."""
    mounted = Mounted(app, edge)
    app.router.routes.append(mounted.route)
    return mounted


def _calls_a_tool(body: bytes) -> bool:
    """Whether a message is a call that a tool answers: no notification, and with the tool's name."""
    try:
        message = orjson.loads(body.removeprefix(BOM))
    except orjson.JSONDecodeError:
        return False
    if not isinstance(message, dict):
        return False
    asked = cast("dict[str, Any]", message)
    params = asked.get("params")
    named = isinstance(params, dict) and isinstance(cast("dict[str, Any]", params).get("name"), str)
    return named and asked.get("method") == CALL and asked.get("id") is not None


def _without_mark(body: bytes, receive: Receive) -> Receive:
    """The body once more without its byte order mark, which the protocol's reader would stumble over."""
    if not body.startswith(BOM):
        return receive
    left: list[Message] = [{"type": "http.request", "body": body.removeprefix(BOM), "more_body": False}]

    async def replay() -> Message:
        return left.pop() if left else await receive()

    return replay


def make_transport_security(edge: EdgeSettings) -> TransportSecuritySettings:
    """Against web pages that make a browser ask on their behalf (DNS rebinding): known names and origins only.

    Who binds to more than loopback and says no `public_url` has names that nobody here knows: then any will do. A page
    doesn't get the token that every request needs in either case.
    """
    loopback = ["127.0.0.1", "localhost", "[::1]"]
    public = httpx2.URL(edge.public_url) if edge.public_url else None
    if public is None and edge.host not in (*loopback, "::1"):
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    hosts = [f"{name}:*" for name in loopback] + loopback
    origins = [f"http://{host}" for host in hosts] + list(edge.cors_origins)
    if public is not None:
        host = public.netloc.decode("ascii")
        origins += [f"{public.scheme}://{host}"]
        # Some proxies name the port that needs no name.
        hosts += [host] if public.port else [host, f"{host}:{_DEFAULT_PORTS[public.scheme]}"]
    return TransportSecuritySettings(allowed_hosts=hosts, allowed_origins=origins)
