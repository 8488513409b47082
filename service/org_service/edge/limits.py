"""Bounds on what clients may send: how often, how much, and with how many headers.

Headers are bounded below ASGI, in the connection's protocol: httptools has no limit of its own, so a header that never
ends would be kept in memory for as long as it comes.
"""

import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from org_service.edge.problems import HttpProblem, Refusal, answer, bad_request

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

ACTORS_MAX: Final = 50_000
"""Buckets kept, 200 bytes each. Who acted longest ago goes first; a full bucket is what they come back to."""
HEADER_TIMEOUT_S: Final = 10.0
"""For the headers of a request to arrive, so that slow clients can't hold connections open for nothing."""


class Buckets:
    """A token bucket for each actor: `burst` requests at once, `rate_per_s` in the long run."""

    def __init__(self, rate_per_s: float, burst: int, actors_max: int = ACTORS_MAX) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._actors_max = actors_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """What is left, and as of when."""

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, actor: str, now: float) -> int:
        """Take one request.

        Args:
            actor: Whose.
            now: By the monotonic clock.

        Returns:
            0, or after how many whole seconds there will be one again; then nothing was taken.
        """
        left, since = self._buckets.get(actor, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._rate_per_s)
        short = left < 1
        self._buckets[actor] = (left if short else left - 1, now)
        self._buckets.move_to_end(actor)
        if len(self._buckets) > self._actors_max:
            self._buckets.popitem(last=False)
        return max(1, math.ceil((1 - left) / self._rate_per_s)) if short else 0


def too_many(wait_s: int) -> Refusal:
    """429: the caller asks too often."""
    return Refusal(
        HttpProblem.TOO_MANY_REQUESTS,
        f"Wait {wait_s} s, then go on more slowly.",
        headers=[(b"retry-after", b"%d" % wait_s)],
    )


def too_large(bytes_max: int) -> Refusal:
    """413; the connection is closed, because the rest of the body is never read."""
    return Refusal(
        HttpProblem.BODY_TOO_LARGE,
        f"A body may have at most {bytes_max} bytes.",
        headers=[(b"connection", b"close")],
    )


class Disconnected(Exception):
    """The client went away in the middle of its request: there is nobody to answer."""


async def read_body(receive: Receive, length: bytes | None, bytes_max: int) -> bytes:
    """Read a request's body, at most `bytes_max` of it, whatever its transfer coding.

    Args:
        receive: ASGI's.
        length: The header `content-length`.
        bytes_max: The bound.

    Raises:
        Refusal: It is larger (413).
        Disconnected: It never came whole.
    """
    if length is not None and length.isdigit() and int(length[:20]) > bytes_max:
        raise too_large(bytes_max)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > bytes_max:
            raise too_large(bytes_max)
        if not message.get("more_body", False):
            return bytes(body)


_CLOSE: Final = (b"connection", b"close")


class _HeadersTooLarge(Exception):
    pass


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP/1.1 on httptools, with bounds on the size and the time of request headers.

    What can't be read as HTTP gets a problem as well. Both answers close the connection.
    """

    header_bytes_max: int

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._header_bytes = 0
        self._in_headers = True
        self._refused: Refusal | None = None
        self._fed = 0
        self._began = False
        self._deadline: Any = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_TIMEOUT_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, while headers are within bounds."""
        self._began = False
        super().data_received(data)
        # A header that isn't complete yet is known to the parser alone: count what it was fed since the one in which
        # the request began, which may have held the end of another.
        if self._in_headers and not self._began:
            self._fed += len(data)
        if self._fed > self.header_bytes_max and not self.transport.is_closing():
            self._refuse()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins."""
        self._header_bytes = self._fed = 0
        self._in_headers = self._began = True
        self._deadline.cancel()
        self._deadline = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.close)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the request's target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The request goes to the application."""
        self._in_headers = False
        self._fed = 0
        self._deadline.cancel()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own words, not for clients
        """Answer what can't be handed on, and close."""
        refusal = self._refused or bad_request("This is no HTTP/1.1 request.")
        status, headers, body = answer(refusal)
        lines = [b"%b: %b\r\n" % header for header in [*self.server_state.default_headers, *headers, _CLOSE]]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()

    def _count(self, octets: int) -> None:
        self._header_bytes += octets
        if self._header_bytes > self.header_bytes_max:
            self._refuse()
            raise _HeadersTooLarge

    def _refuse(self) -> None:
        self._refused = Refusal(
            HttpProblem.HEADERS_TOO_LARGE,
            f"The request line and the headers may have at most {self.header_bytes_max} bytes.",
        )


def bounded_protocol(header_bytes_max: int) -> type[BoundedProtocol]:
    """The protocol with its bound; uvicorn makes one a connection and takes a class."""
    return type("BoundedProtocol", (BoundedProtocol,), {"header_bytes_max": header_bytes_max})
