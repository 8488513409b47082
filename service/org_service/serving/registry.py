"""Which connections there are, in which state and since when: who has waited too long, and who goes when all is full.

Each state has one time limit, so the order of entering it is the order of running out: nothing is searched, and ten
thousand connections cost one look at the first of each state.
"""

from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")


class ConnectionState(StrEnum):
    """What a connection does."""

    NEW = "new"
    """It has sent no whole request yet."""
    IDLE = "idle"
    """It may send another request."""
    HEAD = "head"
    """It has begun another request."""
    ACTIVE = "active"
    """Its request is being answered. As long as that takes: the application has bounds of its own."""
    WRITING = "writing"
    """It doesn't read its answer."""
    CLOSING = "closing"
    """It has its last answer; what it still sends is thrown away."""


TIMEOUTS_S: Final = {
    ConnectionState.NEW: 10.0,  # slow lines take a second; who opens a connection for nothing shall not keep it
    ConnectionState.HEAD: 10.0,
    ConnectionState.IDLE: 75.0,  # longer than load balancers keep one (60 s), so that none meets its end
    ConnectionState.WRITING: 10.0,  # for the next 64 KiB
    ConnectionState.CLOSING: 5.0,  # so that the answer isn't lost in a reset (RFC 9112, section 9.6)
}
SLOW_UNKNOWN_MAX: Final = 256
"""Clients nobody knows that don't read their answers; each holds up to 128 KiB."""


class Registry(Generic[_T]):
    """The connections of a server."""

    def __init__(self) -> None:
        self._queues: dict[tuple[ConnectionState, bool], OrderedDict[_T, float]] = {
            (state, known): OrderedDict() for state in ConnectionState for known in (False, True)
        }
        self._places: dict[_T, tuple[ConnectionState, bool]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, connection: _T) -> bool:
        return connection in self._places

    def __iter__(self) -> Iterator[_T]:
        return iter(list(self._places))

    def count(self, state: ConnectionState) -> int:
        """How many are in a state."""
        return len(self._queues[state, False]) + len(self._queues[state, True])

    def enter(self, connection: _T, state: ConnectionState, now: float, *, known: bool) -> None:
        """Put a connection into a state; one that is in it already stays where it is.

        Args:
            connection: Which.
            state: Into which.
            now: By the monotonic clock.
            known: Whether its last request came from somebody with a good token.
        """
        place = self._places.get(connection)
        if place == (state, known):
            return
        if place is not None:
            del self._queues[place][connection]
        self._places[connection] = (state, known)
        self._queues[state, known][connection] = now

    def leave(self, connection: _T) -> bool:
        """Forget a connection; False where there is none such."""
        place = self._places.pop(connection, None)
        if place is None:
            return False
        del self._queues[place][connection]
        return True

    def find_overdue(self, now: float) -> Iterator[tuple[_T, ConnectionState]]:
        """Connections whose time in their state is over; each must enter another state, or leave, before the next."""
        for (state, _), queue in self._queues.items():
            timeout_s = TIMEOUTS_S.get(state)
            while timeout_s is not None and queue:
                connection = next(iter(queue))
                if queue[connection] + timeout_s > now:
                    break
                yield connection, state

    def find_expendable(self) -> _T | None:
        """The connection that is missed least when there are too many: nobody's request is ever in it.

        First those that have their answer; then those of nobody known, the oldest first; then idle ones of callers.
        """
        for group in (
            [(ConnectionState.CLOSING, False), (ConnectionState.CLOSING, True)],
            [
                (ConnectionState.NEW, False),
                (ConnectionState.HEAD, False),
                (ConnectionState.IDLE, False),
                (ConnectionState.WRITING, False),
            ],
            [(ConnectionState.IDLE, True), (ConnectionState.HEAD, True)],
        ):
            oldest = [
                (since, place, connection)
                for place in group
                for connection, since in [next(iter(self._queues[place].items()), (None, 0.0))]
                if connection is not None
            ]
            if oldest:
                return min(oldest, key=lambda each: each[:2])[2]
        return None

    def find_slow_unknown(self) -> _T | None:
        """The connection of nobody known that hasn't read its answer for longest, where there are too many of them."""
        unknown = self._queues[ConnectionState.WRITING, False]
        return next(iter(unknown)) if len(unknown) > SLOW_UNKNOWN_MAX else None
