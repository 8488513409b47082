"""Pages from templates. What comes from outside is escaped by Jinja, and what can't be seen is shown."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from org_events.ids import uuid7
from org_service.console.requests import ROOT, SIGN_IN, VISITOR
from org_service.operate import words

_FOLDER: Final = Path(__file__).parent
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_FIELDS: Final = {"primary_address": "address"}
_TONES: Final = {
    "good": "active applied done ready released created restored reactivated equal",
    "calm": "running planned waiting updated unchanged changed pending masked",
    "warn": "paused open revealed incomplete inconclusive parked deactivated cancelled "
    "expired abandoned duplicate unread discarded",
    "bad": "failed rejected deleted erased exhausted unreadable differs error",
}
"""What a state looks like; it always says its name as well."""


def _moment(when: datetime | None) -> str | Markup:
    if when is None:
        return "—"
    return Markup('<time datetime="{}">{}</time>').format(when.astimezone(UTC).isoformat(), words.moment(when))


def _tone(state: str) -> str:
    word = str(state).rpartition(".")[2]
    return next((tone for tone, all_of in _TONES.items() if word in all_of.split()), "calm")


def _field(name: str) -> str:
    return _FIELDS.get(name, name.replace("_", " "))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _shown(content: Any) -> str:
    return "—" if content is None else words.value(content)


def _json(content: Any) -> str:
    return words.make_printable_lines(orjson.dumps(content, option=orjson.OPT_INDENT_2, default=str).decode())


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "clean": words.make_printable,
        "count": _count,
        "duration": words.duration,
        "field": _field,
        "json": _json,
        "moment": _moment,
        "number": "{:,}".format,
        "tone": _tone,
        "value": _shown,
    }
    made.filters.update(filters)
    known: dict[str, Any] = {"root": ROOT, "sign_in": SIGN_IN, "asset_url": _asset_url, "form_id": uuid7}
    made.globals.update(known)
    return made


def page(request: Request, name: str, content: Mapping[str, Any], *, status: int = 200) -> Response:
    """A page, or a part of one; never kept by anybody, because it has the data of customers."""
    known = {"visitor": request.scope.get(VISITOR), "path": request.url.path}
    html = _environment().get_template(f"{name}.html").render(known | dict(content))
    return HTMLResponse(html, status, {"cache-control": "no-store"})


@cache
def asset(name: str) -> Response | None:
    """A packaged file; None where there is none of this name. Its address changes with its content."""
    if name not in _assets():
        return None
    headers = {"cache-control": "public, max-age=31536000, immutable"}
    return Response(_assets()[name], headers=headers, media_type=_TYPES[name.rpartition(".")[2]])


@cache
def _asset_url(name: str) -> str:
    return f"{ROOT}/static/{name}?{sha256(_assets()[name]).hexdigest()[:12]}"


@cache
def _assets() -> Mapping[str, bytes]:
    files = (_FOLDER / "static").iterdir()
    return {each.name: each.read_bytes() for each in files if each.suffix.removeprefix(".") in _TYPES}
