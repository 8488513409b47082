"""The HTTP application: FastAPI's router and document, with one layer of our own around it."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match

from org_service.auth.tokens import Tokens
from org_service.domain.policy import Policy
from org_service.edge.http import bodies, changing, docs_page, reading
from org_service.edge.http.changing import Changing
from org_service.edge.http.commands import Commands
from org_service.edge.http.gate import Gate
from org_service.edge.http.openapi import complete_document
from org_service.edge.http.reading import Reading
from org_service.edge.http.request_headers import RequestHeaders
from org_service.edge.http.target import Target, decode_path
from org_service.edge.mcp import http as mcp_http
from org_service.serving.exchange import Scope
from org_service.settings import Settings
from org_service.store.database import Database

API_VERSION: Final = "1.0.0"
"""Of the document; the paths' `/v1` changes only with what is not compatible."""
_DESCRIPTION: Final = (
    "Organizations: each response says what the caller's role is denied.\n\nA change is a "
    "command: it is published and decided once, and the response is its outcome. "
    "`Idempotency-Key` makes retries\nsafe; `If-Match` guards against overwriting someone "
    "else's change; `Prefer: respond-async` returns without waiting.\nErrors are problems (RFC "
    "9457) whose `type` is stable. Guide: docs/http.md."
)
_EXPOSED: Final = (
    "ETag", "Location", "Link", "Retry-After", "X-Request-Id", "X-Command-Id", "Preference-Applied",
    "WWW-Authenticate", "Allow", "Accept-Patch", "Mcp-Session-Id", "Mcp-Protocol-Version",
)  # fmt: skip
"""Headers that pages of other origins may read."""
_ALLOWED: Final = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Prefer", "X-Request-Id",
    "traceparent", "tracestate",
    "Mcp-Protocol-Version", "Mcp-Session-Id", "Mcp-Method", "Mcp-Name", "Last-Event-ID",
)  # fmt: skip
"""Headers that pages of other origins may send; the last ones are those of browsers' MCP clients (streamable HTTP)."""
METHODS: Final = ("GET", "POST", "PATCH", "DELETE")


class Application(FastAPI):
    """FastAPI whose layers are ours: what its own would do, the gate does in less time."""

    def __init__(self, settings: Settings, tokens: Tokens) -> None:
        super().__init__(
            title="Organizations",
            version=API_VERSION,
            description=_DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            redirect_slashes=False,
            # Ours (`telemetry.tracing`) hold no paths and no arguments.
            telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        )
        self._settings = settings
        self._tokens = tokens
        self.mcp = mcp_http.mount(self, settings.edge)
        """MCP at /mcp; its `run` must be entered before requests come."""

    def build_middleware_stack(self) -> Any:
        """The router, what FastAPI's routes need around it, the gate, and CORS where it is asked for."""
        inner = AsyncExitStackMiddleware(Target(self.router))
        gate: Any = Gate(inner, self._settings.edge, self._tokens, self, docs_page.PUBLIC_PATHS)
        origins = self._settings.edge.cors_origins
        if not origins:
            return gate
        return CORSMiddleware(
            gate,
            allow_origins=origins,
            allow_methods=(*METHODS, "HEAD"),
            allow_headers=_ALLOWED,
            expose_headers=_EXPOSED,
            max_age=600,
        )

    def methods_at(self, path: str) -> list[str]:
        """Every method that a path knows."""
        found = [method for method in METHODS if any(self._knows(route, method, path) for route in self.router.routes)]
        return sorted({*found, "HEAD"}) if "GET" in found else found

    def check_body(self, scope: Scope, headers: RequestHeaders) -> None:
        """Reject a body that nothing at this path reads, before it is read.

        Raises:
            HTTPException: There is no such path (404), or it doesn't know the method (405).
            ProblemError: The body has another media type (415).
        """
        method, path = scope["method"], decode_path(scope["raw_path"])
        asked = "GET" if method == "HEAD" else method
        route = next((route for route in self.router.routes if self._knows(route, asked, path)), None)
        if route is None:
            raise HTTPException(405 if self.methods_at(path) else 404)
        if path.startswith("/v1/") and headers.content_length:
            bodies.check_media_type(headers.content_type, headers.content_encoding, patch=method == "PATCH")

    @staticmethod
    def _knows(route: BaseRoute, method: str, path: str) -> bool:
        scope: dict[str, Any] = {"type": "http", "path": path, "method": method, "root_path": "", "headers": []}
        return route.matches(scope)[0] is Match.FULL

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if not self.openapi_schema:
            public_url = self._settings.edge.public_url.rstrip("/")
            self.servers = [{"url": public_url}] if public_url else []
            self.openapi_schema = complete_document(super().openapi())
        return self.openapi_schema


def make_app(settings: Settings, tokens: Tokens, database: Database, policy: Policy, commands: Commands) -> Application:
    """Make the application. It does nothing by itself: what it uses must be started."""
    app = Application(settings, tokens)
    read = Reading(database, policy, commands, settings.edge.public_url)
    app.include_router(reading.make_router(read))
    app.include_router(
        changing.make_router(Changing(commands, settings.edge.outcome_timeout_s, settings.edge.public_url))
    )
    app.include_router(docs_page.make_router(app.openapi))
    return app
