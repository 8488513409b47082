"""`/docs` and `/openapi.json`: the document, and Swagger UI from the installed package: nothing comes from outside.

The packaged Swagger UI knows OpenAPI 3.0; ours is 3.1, because only that has the JSON Schema of the models. What it
shows is the same in both, so the page gives it the document under the older number.
"""

import asyncio
import gzip
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import orjson
from fastapi import APIRouter, Request, Response
from swagger_ui_bundle import swagger_ui_path

from org_service.edge.http.problems import no_such_path
from org_service.edge.http.request_headers import accepts_gzip

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "png": "image/png"}
_FILES: Final = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")
PUBLIC_PATHS: Final = frozenset({"/docs", "/openapi.json", "/docs/page.js", *(f"/docs/{name}" for name in _FILES)})
"""All that needs no token."""
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Organizations API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/page.js"></script>
</body>
</html>
"""
_SCRIPT: Final = """fetch("openapi.json").then((answer) => answer.json()).then((document) => {
  document.openapi = "3.0.3";
  SwaggerUIBundle({ spec: document, dom_id: "#page", deepLinking: true, validatorUrl: null });
});
"""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Swagger UI sets styles inline; scripts come from here alone."""
_SAFE: Final = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}


class _Asset(NamedTuple):
    plain: bytes
    packed: bytes


@cache
def _asset(name: str) -> _Asset:
    plain = (swagger_ui_path / name).read_bytes()
    return _Asset(plain, gzip.compress(plain, mtime=0))


def make_router(document: Callable[[], dict[str, Any]]) -> APIRouter:
    """The pages, which need no token. What takes time to make is made once, and not in the loop.

    Args:
        document: Gives the OpenAPI document.
    """
    routes = APIRouter(include_in_schema=False)
    made: dict[str, Any] = {}
    making = asyncio.Lock()

    async def once(name: str, make: Callable[[], Any]) -> Any:
        if name not in made:
            async with making:
                if name not in made:
                    made[name] = await asyncio.to_thread(make)
        return made[name]

    @routes.get("/openapi.json")
    async def openapi() -> Response:  # pyright: ignore[reportUnusedFunction] - registered by its decorator
        content: bytes = await once("openapi.json", lambda: orjson.dumps(document()))
        return Response(content, headers={"cache-control": "no-cache"}, media_type="application/json")

    @routes.get("/docs")
    async def page() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(_PAGE, headers=_SAFE, media_type="text/html; charset=utf-8")

    @routes.get("/docs/{name}")
    async def asset(request: Request, name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        if name == "page.js":
            return Response(_SCRIPT, headers=_SAFE, media_type="text/javascript")
        if name not in _FILES:
            raise no_such_path()
        content: _Asset = await once(name, lambda: _asset(name))
        packed = accepts_gzip(request.headers.get("accept-encoding"))
        headers = {**_SAFE, "vary": "Accept-Encoding", **({"content-encoding": "gzip"} if packed else {})}
        media_type = _TYPES[name.rpartition(".")[2]]
        return Response(content.packed if packed else content.plain, headers=headers, media_type=media_type)

    return routes
