"""Request headers that change what a request means: preconditions, repetition, preferences. Pure."""

import re
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from org_service.edge.problems import bad_request

KEY_CHARS_MAX: Final = 255
ETAGS_MAX: Final = 10
"""More versions of one organization nobody waits for at once."""
NO_VERSION: Final = 2**63 - 1
"""A version that no organization ever reaches: a precondition that can't hold, but is judged in its place."""
_COMMAND_ID_NAMESPACE: Final = UUID("0c9c5d5e-6d0a-5c43-9a53-3a1f0a2f6f5b")

_ETAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
"""RFC 9110, section 8.8.3."""
_OUR_ETAG: Final = re.compile(r"v([1-9][0-9]{0,18})")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2."""


def etag(version: int) -> bytes:
    """The entity tag of one version of an organization."""
    return b'"v%d"' % version


def _etags(text: str, header: str) -> list[tuple[bool, str]]:
    """Each entity tag of a list: whether it is weak, and its inside."""
    tags: list[tuple[bool, str]] = []
    place = 0
    while True:
        found = _ETAG.match(text, place)
        if found is None:
            raise bad_request(f'{header} must be * or a list of entity tags, as in "v7".')
        tags.append((found[1] is not None, found[2]))
        rest = text[found.end() :].lstrip(" \t")
        if not rest:
            return tags
        if not rest.startswith(",") or len(tags) >= ETAGS_MAX:
            raise bad_request(f'{header} must be * or at most {ETAGS_MAX} entity tags parted by commas, as in "v7".')
        text, place = rest[1:].lstrip(" \t"), 0


def expected_versions(if_match: str | None) -> tuple[int, ...] | None:
    """The versions that `If-Match` lets through (RFC 9110, section 13.1.1); None for any.

    A weak tag never matches, nor does one that isn't ours: `NO_VERSION` stands for what can't be.

    Raises:
        Refusal: It is no list of entity tags (400).
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = [
        int(ours[1])
        for weak, inside in _etags(if_match.strip(), "If-Match")
        if not weak and (ours := _OUR_ETAG.fullmatch(inside))
    ]
    return tuple(dict.fromkeys(version for version in found if version < NO_VERSION)) or (NO_VERSION,)


def is_current(if_none_match: str, version: int) -> bool:
    """Whether the client has this version already (RFC 9110, section 13.1.2: compared weakly).

    Raises:
        Refusal: It is no list of entity tags (400).
    """
    text = if_none_match.strip()
    return text == "*" or any(inside == f"v{version}" for _, inside in _etags(text, "If-None-Match"))


def command_id_for(actor: str, key: str) -> UUID:
    """The command id of an `Idempotency-Key`: the same for the same actor and key, bare or quoted.

    Raises:
        Refusal: The key is empty, too long or not visible ASCII (400).
    """
    inside = key[1:-1] if len(key) >= 2 and key[0] == key[-1] == '"' else key
    if len(inside) > KEY_CHARS_MAX or not _VISIBLE.fullmatch(inside) or '"' in inside:
        raise bad_request(f"Idempotency-Key must be 1 to {KEY_CHARS_MAX} visible characters, bare or in double quotes.")
    return uuid5(_COMMAND_ID_NAMESPACE, f"{actor}\0{inside}")


class Preference(NamedTuple):
    """How long to wait, and which of the client's wishes that is (`Preference-Applied`)."""

    wait_s: float
    applied: bytes | None


def preference(prefer: str | None, wait_max_s: float) -> Preference:
    """What `Prefer` asks for (RFC 7240): `respond-async`, `wait=N`; others, and what can't be read, are ignored."""
    for part in (prefer or "").split(","):
        name, _, content = part.partition(";")[0].partition("=")
        content = content.strip().strip('"')
        match name.strip().lower():
            case "respond-async":
                return Preference(0, b"respond-async")
            case "wait" if re.fullmatch("[0-9]{1,6}", content):
                return Preference(min(float(content), wait_max_s), b"wait=%d" % int(content))
            case _:
                continue
    return Preference(wait_max_s, None)


def sane_request_id(text: str) -> bool:
    """Whether a client's `X-Request-Id` may go into logs and answers as it is."""
    return _REQUEST_ID.fullmatch(text) is not None


def trace_context(text: str) -> str | None:
    """The `traceparent` to hand on; None where it must be ignored."""
    return text if _TRACEPARENT.fullmatch(text) else None
