"""What became of a command, hop by hop. The page is there at once; the records of Kafka come into it."""

from typing import Final

from fastapi import APIRouter, Request, Response

from org_service.console.pages import page
from org_service.console.requests import ROOT
from org_service.console.site import Site
from org_service.operate.hops import Trace
from org_service.operate.trace import trace

_LINES: Final = 50
_WHAT_CHARS_MAX: Final = 100


def make_router(site: Site) -> APIRouter:
    """The page, and what is found."""
    routes = APIRouter()

    @routes.get(f"{ROOT}/trace")
    async def ask(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - by its decorator
        return page(request, "trace", {"what": _what(request)})

    @routes.get(f"{ROOT}/trace/found")
    async def found(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await trace(site.settings, _what(request), _LINES, site.database)
        if isinstance(found, Trace):
            return page(request, "trace_found", {"trace": found})
        return page(request, "trace_lines", {"lines": list(found)[::-1]})

    return routes


def _what(request: Request) -> str:
    return request.query_params.get("what", "")[:_WHAT_CHARS_MAX].strip()
