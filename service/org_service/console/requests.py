"""What every request of the page passes: its bounds, where it comes from, who asks; and what goes with every answer.

A change needs three things that a foreign page can't have: the cookie, which browsers send only with what our own pages
do (SameSite), an `Origin` that is ours, and the form's token, which is made of the session's secret. Whether somebody
is staff is asked again for each request.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from org_service.domain.reasons import ConsoleAct, TicketKind
from org_service.settings import Settings
from org_service.store import console
from org_service.store.database import Database

ROOT: Final = "/console"
SIGN_IN: Final = f"{ROOT}/sign-in"
PUBLIC: Final = (SIGN_IN, f"{SIGN_IN}/", f"{ROOT}/static/")
"""What needs no session: a path, or the beginning of one."""
FORM_BYTES_MAX: Final = 16_384
FORM_FIELDS_MAX: Final = 50
CSRF_FIELD: Final = "csrf"
VISITOR: Final = "orgs.visitor"
"""Where a scope keeps its `Visitor`."""
FORM: Final = "orgs.form"
"""Where a scope keeps the fields of its form."""
_SECRET_BYTES: Final = 32
_TARGET_CHARS_MAX: Final = 2_000
_REASON_CHARS_MAX: Final = 500

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""Of every answer: nothing comes from elsewhere, and nothing is inline."""


class Visitor(NamedTuple):
    """Who asks: somebody who is signed in, and staff."""

    user_id: str
    csrf: str
    """What a form of theirs has to bring back."""
    digest: bytes
    """Of the session."""


class Rejected(Exception):
    """A request that is answered with a page that says why."""

    def __init__(self, status: int, title: str, said: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title
        self.said = said


class Sessions:
    """Sessions in Postgres, and the cookie that names one."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings.console
        self._database = database
        self._secure = settings.console.url.startswith("https:")
        self.cookie = "__Secure-orgs-console" if self._secure else "orgs-console"

    async def find(self, request: Request) -> Visitor | None:
        """Who asks; None where nobody is signed in, or the session is over.

        Raises:
            Rejected: They are signed in, and not staff (any more).
        """
        secret = request.cookies.get(self.cookie, "")
        if not secret:
            return None
        digest = digest_of(secret)
        async with self._database.connect() as conn:
            found = await console.find_session(conn, digest)
        if found is None:
            return None
        if not found.staff:
            raise Rejected(403, "Not for you", f"{found.user_id} is not staff, and this page is for staff alone.")
        return Visitor(found.user_id, _csrf_of(secret), digest)

    async def begin(self, user_id: str, target: str) -> Response:
        """Sign somebody in, and send them where they wanted to go."""
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        async with self._database.connect() as conn:
            await console.note(conn, user_id, ConsoleAct.SIGNED_IN)
            await console.add_ticket(conn, digest_of(secret), TicketKind.SESSION, user_id, self._settings.session_ttl_s)
        answer = RedirectResponse(safe_target(target), 303)
        self.set_cookie(answer, self.cookie, secret, self._settings.session_ttl_s)
        return answer

    async def end(self, visitor: Visitor) -> Response:
        """Sign somebody out."""
        async with self._database.connect() as conn:
            await console.end_session(conn, visitor.digest)
            await console.note(conn, visitor.user_id, ConsoleAct.SIGNED_OUT)
        answer = RedirectResponse(f"{SIGN_IN}?said=out", 303)
        answer.delete_cookie(self.cookie, path=ROOT)
        return answer

    def set_cookie(self, answer: Response, name: str, content: str, ttl_s: float) -> None:
        """Set a cookie that no script can read, and no other page can send with a change."""
        answer.set_cookie(
            name, content, max_age=int(ttl_s), path=ROOT, httponly=True, samesite="lax", secure=self._secure
        )


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).digest()


def _csrf_of(secret: str) -> str:
    return hmac.new(secret.encode(errors="replace"), b"console form", hashlib.sha256).hexdigest()


def see_own(request: Request, url: str) -> None:
    """See that a change comes from a page of ours.

    Args:
        request: With what the browser says of its origin.
        url: Of the service, as browsers know it; empty stands for the host that the browser names.

    Raises:
        Rejected: It comes from elsewhere, or nobody says from where.
    """
    host = request.headers.get("host", "")
    ours = urlsplit(url or f"http://{host}")
    named = urlsplit(request.headers.get("origin", ""))
    if not host or (named.scheme, named.netloc) != (ours.scheme, ours.netloc):
        raise Rejected(403, "From another page", "This change was not sent by a page of ours, so it was not made.")


def see_token(visitor: Visitor, form: Mapping[str, str]) -> None:
    """See that a form is one that this session was given.

    Raises:
        Rejected: It isn't.
    """
    if not hmac.compare_digest(form.get(CSRF_FIELD, "").encode(errors="replace"), visitor.csrf.encode()):
        raise Rejected(
            403, "An old form", "This form belongs to another session, so nothing was changed. Load the page again."
        )


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form; of several with one name the last.

    Raises:
        Rejected: It is none.
    """
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX, errors="strict")
    except ValueError:
        raise Rejected(400, "Not a form", "The request could not be read as a form.") from None
    return dict(pairs)


def safe_target(target: str) -> str:
    """Where to go after a sign-in: a page of ours, whatever the address said."""
    inside = target == ROOT or target.startswith((f"{ROOT}/", f"{ROOT}?"))
    plain = len(target) <= _TARGET_CHARS_MAX and target.isascii() and target.isprintable()
    plain = plain and "\\" not in target and ".." not in target
    return target if inside and plain and not target.startswith(SIGN_IN) else ROOT


def own_address(request: Request) -> str:
    """What was asked for: path and query."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def where(request: Request) -> str:
    """The page that a request is about: itself, or the page whose form or part it is."""
    if request.method == "GET" and not is_part(request):
        return safe_target(own_address(request))
    before = urlsplit(request.headers.get("referer", ""))
    return safe_target(before.path + (f"?{before.query}" if before.query else ""))


def is_part(request: Request) -> bool:
    """Whether htmx asks, for a part of a page; a form that it sends in the browser's stead gets a whole one."""
    return request.headers.get("hx-request") == "true" and request.headers.get("hx-boosted") != "true"


def read_number(text: str | None, otherwise: int) -> int:
    """A number of an address; `otherwise` where it is none that Postgres could have."""
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 19 else otherwise


def read_id(text: str, noun: str) -> UUID:
    """The id of a thing of this kind, in an address.

    Raises:
        Rejected: It is none.
    """
    try:
        return UUID(text)
    except ValueError:
        raise Rejected(
            404, f"No such {noun}", f"This is no id of {'an' if noun[0] in 'aeiou' else 'a'} {noun}."
        ) from None


def read_reason(form: Mapping[str, str]) -> str:
    """Why somebody wants what a form asks for.

    Raises:
        Rejected: They don't say.
    """
    if not (reason := form.get("reason", "")[:_REASON_CHARS_MAX].strip()):
        raise Rejected(400, "Say why", "Nothing was done: say why, it is kept with your name.")
    return reason


def visitor_of(request: Request) -> Visitor:
    """Who asks, where only who is signed in gets."""
    return request.scope[VISITOR]


def form_of(request: Request) -> Mapping[str, str]:
    """The fields that came with a change."""
    return request.scope[FORM]
