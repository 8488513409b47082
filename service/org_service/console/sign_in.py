"""Signing in, at the issuer or by a one-time link, and signing out."""

import secrets
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.responses import RedirectResponse

from org_service.console.oidc import Begun
from org_service.console.pages import page
from org_service.console.requests import ROOT, SIGN_IN, Rejected, digest_of, safe_target, visitor_of
from org_service.console.site import Site
from org_service.store import console

_UNDER_WAY: Final = "orgs-console-sign-in"
_UNDER_WAY_TTL_S: Final = 600
"""For whoever has to find a password or a second factor."""
_SAID: Final = {
    "expired": "Your session is over. Sign in again, and you are back where you were.",
    "undone": "Your session is over, so nothing was changed. Sign in again, and you are back where you were.",
    "out": "You are signed out.",
}


def make_router(site: Site) -> APIRouter:
    """The pages, which need no session."""
    routes = APIRouter()
    enabled = site.settings.console
    _route_issuer(routes, site)

    @routes.get(SIGN_IN)
    async def sign_in(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - by its decorator
        asked = request.query_params
        target = safe_target(asked.get("return", ROOT))
        if await _is_signed_in(site, request):
            return RedirectResponse(target, 303)
        shown = {
            "said": _SAID.get(asked.get("said", "")),
            "target": target,
            "issuer": site.settings.auth.issuer if site.provider.configured else None,
            "links": enabled.links,
        }
        return page(request, "sign_in", shown)

    @routes.get(f"{SIGN_IN}/link")
    async def link(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        secret = request.query_params.get("secret", "")
        async with site.database.connect() as conn:
            user_id = await console.use_link(conn, digest_of(secret)) if enabled.links else None
        if user_id is None:
            raise Rejected(403, "A used link", "This link was used, or its time is over. `orgs console` makes another.")
        return await site.sessions.begin(user_id, ROOT)

    @routes.post(f"{ROOT}/sign-out")
    async def sign_out(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await site.sessions.end(visitor_of(request))

    return routes


def _route_issuer(routes: APIRouter, site: Site) -> None:
    """To the issuer, and back from there."""

    @routes.get(f"{SIGN_IN}/begin")
    async def begin(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        if not site.provider.configured:
            raise Rejected(404, "No such way in", "Nobody signs in at an issuer here (ORGS_CONSOLE__CLIENT_ID).")
        target = safe_target(request.query_params.get("return", ROOT))
        if await _is_signed_in(site, request):
            return RedirectResponse(target, 303)
        url, begun = await site.provider.begin(_back_to(site, request), target)
        answer = RedirectResponse(url, 303)
        site.sessions.set_cookie(answer, _UNDER_WAY, begun.as_cookie(), _UNDER_WAY_TTL_S)
        return answer

    @routes.get(f"{SIGN_IN}/callback")
    async def callback(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        begun = Begun.from_cookie(request.cookies.get(_UNDER_WAY, ""))
        asked = request.query_params
        if begun is None or not secrets.compare_digest(asked.get("state", "").encode(), begun.state.encode()):
            raise Rejected(400, "Not your sign-in", "This answer of the issuer belongs to no sign-in of this browser.")
        if "code" not in asked:
            raise Rejected(403, "Sign-in failed", "The issuer did not let you in.")
        user_id = await site.provider.finish(begun, asked["code"], _back_to(site, request))
        answer = await site.sessions.begin(user_id, begun.target)
        answer.delete_cookie(_UNDER_WAY, path=ROOT)
        return answer


def _back_to(site: Site, request: Request) -> str:
    host = request.headers.get("host", "")
    return f"{site.settings.console.url or f'http://{host}'}{SIGN_IN}/callback"


async def _is_signed_in(site: Site, request: Request) -> bool:
    """Whether they are, in another tab perhaps: after a second time the forms of the first would be worth nothing."""
    try:
        return await site.sessions.find(request) is not None
    except Rejected:
        return False  # not as staff: as somebody else they may be
