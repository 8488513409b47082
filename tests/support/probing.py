"""Acting at a named point of the service's own course: waiting, failing or killing there."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from org_service import probes
from org_service.probes import ImmediateListener, Listener, Point


@contextmanager
def probing(point: Point, listener: Listener | ImmediateListener) -> Iterator[None]:
    """Let `listener` act whenever the point is passed, until the end of the block."""
    assert point not in probes.listeners
    probes.listeners[point] = listener
    try:
        yield
    finally:
        del probes.listeners[point]


def once(strike: Callable[[], Awaitable[object]]) -> Listener:
    """A listener that acts the first time alone, also where its own action passes the point again."""
    due = iter([True])

    async def listener(*_: Any) -> None:
        if next(due, False):
            await strike()

    return listener


class Killed(BaseException):
    """What no handler of the service catches, as SIGKILL."""


async def kill() -> None:
    """Die at the point."""
    raise Killed
