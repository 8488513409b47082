"""Where a request begins and where it ends, without any I/O.

A proxy and a server that disagree about the end of a request are how one client's bytes become another client's
request (RFC 9112, section 11.2). So a head must match one strict pattern before llhttp reads it: nothing that any
reader of HTTP/1.1 could read in another way (bare LF, folded lines, a space before the colon, a length said twice,
codings besides `chunked`) comes through, and nothing behind it on that connection is read at all.

Where a body ends is counted here, because httptools gives up a body when it sees `Upgrade`, and takes trailers for
headers. `Upgrade` is ignored, as RFC 9110, section 7.8 allows: the request continues in HTTP/1.1, with its body.
Trailers are dropped (RFC 9110, section 6.5.1). That whatever is accepted is read alike by h11 and by llhttp, the tests
prove.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import httptools

HEADERS_MAX: Final = 100
"""Lines of a head: browsers behind proxies send 30."""
CHUNKS_MAX: Final = 1_024
"""Of one body: each costs 2 µs, and clients write a body of 64 KiB in a dozen."""
CHUNK_LINE_BYTES_MAX: Final = 256
"""A chunk's size with its extensions, which nobody uses."""
TRAILER_BYTES_MAX: Final = 4_096
"""All trailers of a body: they are dropped."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD: Final = _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*\r\n"
_HEAD: Final = re.compile(rb"([A-Z]{1,20}) ([!-~]+) HTTP/([0-9]\.[0-9])\r\n(?:" + _FIELD + rb")*\r\n")
"""RFC 9112, sections 2.2, 3 and 5, without what is obsolete."""
_NEVER_A_HEAD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r[^\n]|\n[ \t]")
"""What no head holds: it isn't waited for the end of one that does."""
_HOST: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]*)(?::[0-9]{0,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]*)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE)
_BROKEN_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t\x20-\x7e]*)?\r\n")
_TRAILER: Final = re.compile(_FIELD)


class MalformedError(Exception):
    """What came can't be read as one request: it is answered, and the connection closed.

    Args:
        status: Of the answer.
        detail: What is wrong, for the client; never a byte of what it sent.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def head_too_large(bytes_max: int) -> MalformedError:
    """The rejection of a head of more bytes."""
    return MalformedError(431, f"The request line and the headers may have at most {bytes_max} bytes.")


class Head(NamedTuple):
    """The head of one request."""

    method: str
    path: str
    """Decoded; what it means is the application's matter."""
    raw_path: bytes
    query: bytes
    version: str
    """1.1 or 1.0."""
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    keep_alive: bool
    expects_continue: bool


class _Length:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = False

    def read(self, data: bytes, body: bytearray) -> int:
        """Add what is the body's; returns how many bytes that were."""
        part = data[: self._left]
        body += part
        self._left -= len(part)
        self.ended = not self._left
        return len(part)


class _Chunks:
    """A body in chunks, in the one form that has no second reading (RFC 9112, section 7.1)."""

    def __init__(self) -> None:
        self.ended = False
        self._left = 0
        """Bytes of the chunk's data that are still to come."""
        self._line = bytearray()
        self._expected = self._size
        self._chunks = 0
        self._trailer_bytes = 0

    def read(self, data: bytes, body: bytearray) -> int:
        """Add what is the body's; returns how many bytes that took.

        Raises:
            MalformedError: They could be read in two ways, or are too many.
        """
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                part = data[at : at + self._left]
                body += part
                self._left -= len(part)
                at += len(part)
                continue
            end = data.find(b"\n", at) + 1
            self._line += data[at : end or len(data)]
            at = end or len(data)
            if self._expected != self._trailer and len(self._line) > CHUNK_LINE_BYTES_MAX:
                raise MalformedError(400, "A chunk-size line is too long.")
            if self._trailer_bytes + len(self._line) > TRAILER_BYTES_MAX:
                raise MalformedError(431, f"Trailers may have at most {TRAILER_BYTES_MAX} bytes; they are ignored.")
            if end:
                line = bytes(self._line)
                self._line.clear()
                self._expected(line)
        return at

    def _size(self, line: bytes) -> None:
        found = _CHUNK_SIZE.fullmatch(line)
        self._chunks += 1
        if found is None or self._chunks > CHUNKS_MAX:
            raise MalformedError(400, "The body's chunks are malformed, or too many.")
        self._left = int(found[1], 16)
        self._expected = self._end_of_data if self._left else self._trailer

    def _end_of_data(self, line: bytes) -> None:
        if line != b"\r\n":
            raise MalformedError(400, "A chunk is longer than its size.")
        self._expected = self._size

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line)
        self.ended = line == b"\r\n"
        if not self.ended and not _TRAILER.fullmatch(line):
            raise MalformedError(400, "The trailers are malformed.")


class RequestReader:
    """The requests of one connection, one after the other.

    Args:
        head_bytes_max: Of the request line and the headers; more is 431.
    """

    def __init__(self, head_bytes_max: int) -> None:
        self._head_bytes_max = head_bytes_max
        self._ahead = bytearray()
        """What belongs to no request yet."""
        self._searched = 0
        """How much of it is known to hold no end of a head."""
        self._blank_lines = 1
        self._framing: _Length | _Chunks | None = None

    @property
    def waiting(self) -> int:
        """Bytes that came and that nobody has asked for: of a body, and of requests behind the one in flight."""
        return len(self._ahead)

    @property
    def whole(self) -> bool:
        """Whether the body has been read to its end."""
        return self._framing is None

    def feed(self, data: bytes) -> None:
        """Take what came; nothing is made of it until it is asked for."""
        self._ahead += data

    def read_body(self) -> bytes:
        """What has come of the body since the last time.

        Raises:
            MalformedError: It can't be read; nothing that came with it, or before it, may be used.
        """
        body = bytearray()
        if self._framing is not None:
            del self._ahead[: self._framing.read(bytes(self._ahead), body)]
            if self._framing.ended:
                self._framing = None
        return bytes(body)

    def drop_body(self) -> None:
        """Pass over a body that nobody wants, if it has come and has a length; then it is `whole`.

        Chunks aren't checked: it takes time to find their end, and they may be an attacker's.
        """
        if isinstance(self._framing, _Length):
            self.read_body()

    def next_head(self) -> Head | None:
        """The head of the next request, once it is whole; the body of the one before must be.

        Raises:
            MalformedError: There is none, and never will be.
        """
        assert self.whole, "a body would be read as a head"
        ahead = self._ahead
        if ahead.startswith(b"\r\n") and self._blank_lines:
            # Old clients end a body with a line that isn't theirs (RFC 9112, section 2.2).
            self._blank_lines = self._searched = 0
            del ahead[:2]
        if ahead.startswith(b"\r\n"):
            raise _not_http()
        end = ahead.find(b"\r\n\r\n", max(0, self._searched - 3))
        size = len(ahead) if end < 0 else end + 4
        if size > self._head_bytes_max:
            raise head_too_large(self._head_bytes_max)
        if end < 0:
            if _NEVER_A_HEAD.search(ahead, max(0, self._searched - 1)):
                raise _not_http()
            self._searched = len(ahead)
            return None
        lines = bytes(ahead[:size])
        del ahead[:size]
        self._searched, self._blank_lines = 0, 1
        head, self._framing = _read(lines)
        return head


class _HeaderFields:
    """What llhttp reads in a head."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def _not_http() -> MalformedError:
    return MalformedError(400, "This is not an HTTP/1.1 request.")


def _read(lines: bytes) -> tuple[Head, _Length | _Chunks | None]:
    """A whole head, and how its body ends.

    Raises:
        MalformedError: It could be read in two ways.
    """
    found = _HEAD.fullmatch(lines)
    if found is None:
        raise _not_http()
    headers_count = lines.count(b"\n") - 2
    if headers_count > HEADERS_MAX:
        raise MalformedError(431, f"A request may have at most {HEADERS_MAX} headers.")
    method, target, version = found[1], found[2], found[3].decode()
    if version not in ("1.1", "1.0"):
        raise MalformedError(505, "Only HTTP/1.1 is supported.")
    fields = _HeaderFields()
    try:
        httptools.HttpRequestParser(fields).feed_data(lines)
    except httptools.HttpParserUpgrade:
        pass  # there is no other protocol here
    except httptools.HttpParserError as error:
        raise _not_http() from error
    headers = fields.headers
    if not fields.complete or fields.target != target or len(headers) != headers_count:
        raise _not_http()
    hosts = _values(headers, b"host")
    if len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(_HOST.fullmatch, hosts)):
        raise MalformedError(400, "Send exactly one Host header with a host name.")
    framing = _framing(headers, version)
    raw_path, query = _target(method, target, hosts[0] if hosts else b"")
    options = [token.strip() for value in _values(headers, b"connection") for token in value.lower().split(b",")]
    head = Head(
        method.decode(),
        _path(raw_path),
        raw_path,
        query,
        version,
        headers,
        version == "1.1" and b"close" not in options,
        version == "1.1" and [value.lower() for value in _values(headers, b"expect")] == [b"100-continue"],
    )
    return head, framing


def _values(headers: list[tuple[bytes, bytes]], wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]


def _framing(headers: list[tuple[bytes, bytes]], version: str) -> _Length | _Chunks | None:
    """How long the body is, where that is said once and in one way (RFC 9112, section 6.3)."""
    lengths, codings = _values(headers, b"content-length"), _values(headers, b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise MalformedError(400, "The length of the body is given twice.")
    if codings and codings[0].lower() != b"chunked":
        raise MalformedError(501, "The only supported transfer coding is chunked.")
    if codings and version == "1.0":
        raise MalformedError(400, "HTTP/1.0 does not support Transfer-Encoding.")
    if codings:
        return _Chunks()
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise MalformedError(400, "Content-Length is not a number of bytes.")
    return _Length(int(lengths[0])) if lengths and int(lengths[0]) else None


def _target(method: bytes, target: bytes, host: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request's target (RFC 9112, section 3.2)."""
    if b"#" in target:
        raise MalformedError(400, "The target must not have a fragment.")
    if target.startswith(b"/"):
        path, _, query = target.partition(b"?")
        return path, query
    if method == b"OPTIONS" and target == b"*":
        return target, b""
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or absolute[1].lower() != host.lower():
        raise MalformedError(400, "The target must be a path, or a URL with the host of the Host header.")
    return absolute[2] or b"/", absolute[3] or b""


def _path(raw: bytes) -> str:
    if b"%" not in raw:
        return raw.decode("ascii")
    try:
        if not _BROKEN_ESCAPE.search(raw):
            return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        pass
    raise MalformedError(400, "The path is not percent-encoded UTF-8.")
