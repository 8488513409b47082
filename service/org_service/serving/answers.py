"""The bytes of an answer (RFC 9112, sections 4 and 6), without any I/O."""

import http
import re
from collections.abc import Iterable, Sequence
from typing import Final

PHRASES: Final = {status.value: status.phrase.encode() for status in http.HTTPStatus}
_LINE_END: Final = re.compile(rb"[\r\n\0]")

HeaderLines = Iterable[tuple[bytes, bytes]]


def encode_head(status: int, headers: HeaderLines) -> bytes:
    """The status line and the headers.

    Raises:
        ValueError: A header would end its line, and begin another.
    """
    parts = [b"HTTP/1.1 %d %b" % (status, PHRASES.get(status, b""))]
    for name, value in headers:
        line = b"%b: %b" % (name, value)
        if _LINE_END.search(line):
            raise ValueError("a header contains a line break")
        parts.append(line)
    parts.append(b"\r\n")
    return b"\r\n".join(parts)


class Answer:
    """One answer, in parts.

    Args:
        method: Of the request.
        version: Of the request: 1.0 knows no chunks.
        status: Of the answer.
        headers: Its headers; `transfer-encoding` isn't the application's to say.
    """

    def __init__(self, method: str, version: str, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        lengths = {int(value) for name, value in headers if name.lower() == b"content-length"}
        if len(lengths) > 1 or any(name.lower() == b"transfer-encoding" for name, _ in headers):
            raise ValueError("a response has two lengths")
        self._status = status
        self._headers = list(headers)
        self._bodiless = method == "HEAD" or status in (204, 304)
        self._left = next(iter(lengths), None)
        self._chunked = not self._bodiless and self._left is None and version == "1.1"
        self.closes = not self._bodiless and self._left is None and not self._chunked
        """Whether only the end of the connection ends it."""

    def begin(self, *, close: bool) -> bytes:
        """The head.

        Args:
            close: Whether it is the last one of its connection.
        """
        if close and (b"connection", b"close") not in self._headers:
            self._headers.append((b"connection", b"close"))
        if self._chunked:
            self._headers.append((b"transfer-encoding", b"chunked"))
        return encode_head(self._status, self._headers)

    def encode_part(self, content: bytes | memoryview) -> list[bytes | memoryview]:
        """A part of the body, framed; what has no body leaves it out.

        Raises:
            ValueError: It is longer than the headers say.
        """
        if not content or self._bodiless:
            return []
        if self._chunked:
            return [b"%x\r\n" % len(content), content, b"\r\n"]
        if self._left is not None:
            self._left -= len(content)
            if self._left < 0:
                raise ValueError("a response is longer than its Content-Length")
        return [content]

    def encode_end(self) -> bytes:
        """The end of the body.

        Raises:
            ValueError: It is shorter than the headers say.
        """
        if self._left and not self._bodiless:
            raise ValueError("a response is shorter than its Content-Length")
        return b"0\r\n\r\n" if self._chunked else b""
