"""Bounds on what callers may send: how often, how much, and for how long. What comes before a caller is known, the
server bounds: see `org_service.serving`.
"""

import asyncio
import math
from collections import OrderedDict
from typing import Final

from org_service.edge.http.problems import HttpProblem, ProblemError
from org_service.serving.exchange import Receive

WAIT_S: Final = "orgs.wait"
"""Where a scope keeps after how many seconds its caller may ask again, or 0 where the request is within its rate."""
ACTORS_MAX: Final = 50_000
"""Buckets kept, 200 bytes each. Who acted longest ago goes first; a full bucket is what they come back to."""
BODY_TIMEOUT_S: Final = 10.0
"""For a whole body, of 64 KiB at most, once its headers are here: a slow line takes a second."""


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


def too_many(wait_s: int) -> ProblemError:
    """429: the caller asks too often."""
    return ProblemError(
        HttpProblem.TOO_MANY_REQUESTS,
        f"Wait {wait_s} s, then send requests more slowly.",
        headers=[(b"retry-after", b"%d" % wait_s)],
    )


def too_large(bytes_max: int) -> ProblemError:
    """413; the connection is closed, because the rest of the body is never read."""
    return ProblemError(
        HttpProblem.BODY_TOO_LARGE,
        f"The body may have at most {bytes_max} bytes.",
        headers=[(b"connection", b"close")],
    )


def too_slow() -> ProblemError:
    """408; the connection is closed, because the rest of the body is never read."""
    return ProblemError(
        HttpProblem.REQUEST_TIMEOUT,
        f"The body must arrive within {BODY_TIMEOUT_S:.0f} s.",
        headers=[(b"connection", b"close")],
    )


class Disconnected(Exception):
    """The client went away in the middle of its request: there is nobody to answer."""


async def read_body(receive: Receive, length: int | None, bytes_max: int) -> bytes:
    """Read a request's body, at most `bytes_max` of it, within `BODY_TIMEOUT_S`, whatever its transfer coding.

    Args:
        receive: ASGI's.
        length: As the headers say; None where they don't.
        bytes_max: The bound.

    Raises:
        ProblemError: It is larger (413), or comes too slowly (408).
        Disconnected: It never came whole.
    """
    if length is not None and length > bytes_max:
        raise too_large(bytes_max)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                body += message.get("body", b"")
                if len(body) > bytes_max:
                    raise too_large(bytes_max)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as error:
        raise too_slow() from error
