"""The one place that reads request headers: who asks, what the body is, preconditions, repetition, preferences. Pure.

What of them says where a request ends, `org_service.serving.framing` has read before; what a bearer token is,
`org_service.auth.tokens` knows, because records on Kafka bring tokens too.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from uuid import UUID, uuid5

from org_service.edge.http.problems import bad_request
from org_service.wire.ids import read_traceparent

COMMAND_ID: Final = "x-command-id"
"""The header of an answer that names its change: /v1/commands/{id} shows its outcome."""
IDEMPOTENCY_KEY_CHARS_MAX: Final = 255
ETAGS_MAX: Final = 10
"""More versions of one organization nobody waits for at once."""
NO_VERSION: Final = 2**63 - 1
"""A version that no organization ever reaches: a precondition that can't hold, but is judged in its place."""
_COMMAND_ID_NAMESPACE: Final = UUID("0c9c5d5e-6d0a-5c43-9a53-3a1f0a2f6f5b")

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, section 5.6.2
_WORD: Final = rf'{_TOKEN}|"(?:[^"\\]|\\.)*"'
_ETAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
"""RFC 9110, section 8.8.3."""
_OUR_ETAG: Final = re.compile(r"v([1-9][0-9]{0,18})(?:-[0-9a-f]{8})?")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")
_MEDIA_TYPE: Final = re.compile(rf"({_TOKEN}/{_TOKEN})[ \t]*")
_PREFERENCE: Final = re.compile(rf"({_TOKEN})[ \t]*+(?:=[ \t]*+({_WORD})?)?[ \t]*+(?:;.*)?", re.DOTALL)
"""RFC 7240, section 2; with parameters, of which no preference of ours has any.

The blanks are never given back: when each of the three could hold any part of one run, 15,000 of them took half a
minute.
"""
_PARAMETER: Final = re.compile(rf"({_TOKEN})=({_WORD})")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class RequestHeaders:
    """What the gate needs of a request's headers, before anything else is known: the last line of each name counts.

    Args:
        lines: Names in lower case, as a server hands them on.
    """

    def __init__(self, lines: Iterable[tuple[bytes, bytes]]) -> None:
        self._lines: dict[bytes, bytes] = {}
        self.authorization_repeated = False
        """Whether there are several: which one counts, every reader would guess differently."""
        for name, value in lines:
            if name == b"authorization" and name in self._lines:
                self.authorization_repeated = True
            self._lines[name] = value

    @property
    def authorization(self) -> bytes | None:
        """As sent."""
        return self._lines.get(b"authorization")

    @property
    def request_id(self) -> str | None:
        """The client's `X-Request-Id`; None where it must not go into logs and answers as it is."""
        text = self._lines.get(b"x-request-id", b"").decode("latin-1")
        return text if is_sane_request_id(text) else None

    @property
    def traceparent(self) -> str | None:
        """The trace to hand on; None where there is none, or it must be ignored."""
        return read_traceparent(self._lines.get(b"traceparent", b"").decode("latin-1"))

    @property
    def has_body(self) -> bool:
        """Whether a body comes, be it empty."""
        return b"content-length" in self._lines or b"transfer-encoding" in self._lines

    @property
    def content_length(self) -> int | None:
        """Bytes of the body; None where only its end tells."""
        length = self._lines.get(b"content-length", b"")
        return int(length) if length.isdigit() else None

    @property
    def content_type(self) -> str | None:
        """Media type and parameters, as sent."""
        value = self._lines.get(b"content-type")
        return None if value is None else value.decode("latin-1")

    @property
    def content_encoding(self) -> Sequence[str]:
        """The lines of it, of which the last one is enough to reject a body unread."""
        value = self._lines.get(b"content-encoding")
        return () if value is None else (value.decode("latin-1"),)


def combine(lines: Sequence[str]) -> str | None:
    """The value of a list-valued header that came in several lines (RFC 9110, section 5.3); None where it is absent."""
    return ", ".join(lines) if lines else None


def require_single(lines: Sequence[str], header: str) -> str | None:
    """The value of a header that is not a list; None where it is absent.

    Raises:
        ProblemError: It came with several values (400): which one counts, every reader would guess differently.
    """
    values = {line.strip() for line in lines}
    if len(values) > 1:
        raise bad_request(f"Send {header} once; it has {len(values)} values.")
    return next(iter(values), None)


def _split(text: str, separator: str) -> Iterator[str]:
    """The non-empty members of a list, trimmed. A separator inside a quoted string separates nothing."""
    start, quoted, escaped = 0, False, False
    for index, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            if member := text[start:index].strip(" \t"):
                yield member
            start = index + 1
    if member := text[start:].strip(" \t"):
        yield member


def _unquoted(word: str) -> str:
    """The value of a token or a quoted string."""
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def make_etag(version: int) -> bytes:
    """The entity tag of one version of an organization."""
    return b'"v%d"' % version


def make_etag_for(version: int, access: str) -> bytes:
    """The entity tag of one version as one caller sees it.

    Args:
        version: Of the organization.
        access: Eight hexadecimal digits that change with what the caller is in it.
    """
    return f'"v{version}-{access}"'.encode()


def _etags(text: str, header: str) -> list[tuple[bool, str]]:
    """Each entity tag of a list: whether it is weak, and its inside. Empty members are passed over (section 5.6.1).

    Not by `_split`: the inside of an entity tag is no quoted string, and a backslash in it escapes nothing.
    """
    tags: list[tuple[bool, str]] = []
    rest = text.lstrip(" \t,")
    while rest and len(tags) <= ETAGS_MAX:
        found = _ETAG.match(rest)
        if found is None:
            break
        tags.append((found[1] is not None, found[2]))
        after = rest[found.end() :].lstrip(" \t")
        if after and not after.startswith(","):
            break
        rest = after.lstrip(" \t,")
    if rest or not tags or len(tags) > ETAGS_MAX:
        raise bad_request(f'{header} must be * or 1 to {ETAGS_MAX} comma-separated entity tags, such as "v7".')
    return tags


class IfMatch(NamedTuple):
    """What `If-Match` lets through."""

    versions: tuple[int, ...] | None
    """`NO_VERSION` stands for what can't be; None is any."""
    weak: bool = False
    """Whether a weak tag named a version: it never matches (RFC 9110, section 13.1.1), which surprises people."""


def read_if_match(if_match: str | None) -> IfMatch:
    """The versions that `If-Match` lets through (RFC 9110, section 13.1.1).

    A weak tag never matches, nor does one that isn't ours. Of what an entity tag says of the caller nothing counts.

    Raises:
        ProblemError: It is not a list of entity tags (400).
    """
    if if_match is None or if_match.strip() == "*":
        return IfMatch(None)
    tags = _etags(if_match.strip(), "If-Match")
    ours = [(weak, int(found[1])) for weak, inside in tags if (found := _OUR_ETAG.fullmatch(inside))]
    versions = dict.fromkeys(version for weak, version in ours if not weak and version < NO_VERSION)
    return IfMatch(tuple(versions) or (NO_VERSION,), weak=any(weak for weak, _ in ours))


def forbids_any(if_none_match: str | None) -> bool:
    """Whether `If-None-Match` of a change is `*`: only what does not exist may be changed (RFC 9110, section 13.1.2).

    Raises:
        ProblemError: It is anything else (400): a version that must not be there is no precondition of a command.
    """
    if if_none_match is None:
        return False
    if if_none_match.strip() != "*":
        raise bad_request("If-None-Match of a change may only be *. Give the version to change in If-Match.")
    return True


def is_current(if_none_match: str, tag: bytes) -> bool:
    """Whether the client has this representation already (RFC 9110, section 13.1.2: compared weakly).

    Args:
        if_none_match: As sent.
        tag: The entity tag of what would be the answer.

    Raises:
        ProblemError: It is not a list of entity tags (400).
    """
    text = if_none_match.strip()
    return text == "*" or any(f'"{inside}"'.encode() == tag for _, inside in _etags(text, "If-None-Match"))


def derive_command_id(actor: str, key: str) -> UUID:
    """The command id of an `Idempotency-Key`: the same for the same actor and key, bare or quoted.

    Raises:
        ProblemError: The key is empty, too long or not visible ASCII (400).
    """
    inside = key[1:-1] if len(key) >= 2 and key[0] == key[-1] == '"' else key
    if len(inside) > IDEMPOTENCY_KEY_CHARS_MAX or not _VISIBLE.fullmatch(inside) or '"' in inside:
        raise bad_request(
            f"Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible characters, bare or in double quotes."
        )
    return uuid5(_COMMAND_ID_NAMESPACE, f"{actor}\0{inside}")


class Preference(NamedTuple):
    """How long to wait, and which of the client's wishes an answer may claim (`Preference-Applied`)."""

    wait_s: float
    waited: str | None = None
    """`wait=N`, where that is what was waited for at most."""
    asynchronous: bool = False
    """Whether `respond-async` was asked for."""

    def describe_applied(self, *, pending: bool) -> str | None:
        """What was applied: `respond-async` only where the answer came before the outcome (RFC 7240, section 4.1)."""
        names = ["respond-async"] if self.asynchronous and pending else []
        return ", ".join([*names, *([self.waited] if self.waited else [])]) or None


def parse_preference(prefer: str | None, wait_max_s: float) -> Preference:
    """What `Prefer` asks for (RFC 7240): `respond-async`, `wait=N`, of each the first; what can't be read is ignored.

    With both, the outcome is waited for that long (section 4.3). A wait beyond `wait_max_s` ends there, and isn't
    claimed as applied.
    """
    found: dict[str, str] = {}
    for member in _split(prefer or "", ","):
        parsed = _PREFERENCE.fullmatch(member)
        if parsed is not None:
            found.setdefault(parsed[1].lower(), _unquoted(parsed[2] or ""))
    asynchronous = found.get("respond-async") == ""
    wait = found.get("wait", "")
    if not re.fullmatch("[0-9]{1,9}", wait):
        return Preference(0.0 if asynchronous else wait_max_s, None, asynchronous)
    waited = f"wait={int(wait)}" if int(wait) <= wait_max_s else None
    return Preference(min(float(wait), wait_max_s), waited, asynchronous)


def parse_media_type(content_type: str) -> tuple[str, dict[str, str]] | None:
    """The type in lower case and its parameters (RFC 9110, section 8.3.1); None where it can't be read."""
    first, *parameters = list(_split(content_type, ";")) or [""]
    named = _MEDIA_TYPE.fullmatch(first)
    read = [_PARAMETER.fullmatch(parameter) for parameter in parameters]
    if named is None or content_type.lstrip(" \t").startswith(";") or not all(read):
        return None
    return named[1].lower(), {found[1].lower(): _unquoted(found[2]) for found in read if found}


def is_unencoded(content_encoding: Iterable[str]) -> bool:
    """Whether the lines of `Content-Encoding` name nothing but `identity`."""
    return all(each.lower() == "identity" for line in content_encoding for each in _split(line, ","))


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Whether an answer may be packed. Every browser names it plainly, so its weight isn't looked at."""
    return "gzip" in (accept_encoding or "")


def is_sane_request_id(text: str) -> bool:
    """Whether a client's `X-Request-Id` may go into logs and answers as it is."""
    return _REQUEST_ID.fullmatch(text) is not None
