"""Named points in the course of the work at which a test waits, fails or kills, in place of replacing what is private.

In production nobody listens, and a point costs one comparison:

    if probes.listeners:
        await probe("apply.before_transaction", self)
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

Point = Literal[
    "apply.before_transaction",
    "apply.after_lock",
    "apply.before_positions",
    "apply.after_commit",
    "apply.before_replies",
    "reference.before_transaction",
    "worker.before_poll",
    "worker.before_look_at_progress",
    "worker.before_look_for_records",
]
"""Where."""
Listener = Callable[..., Awaitable[object]]
"""Told what the point knows; what it raises is raised at the point."""

listeners: Final[dict[Point, Listener]] = {}
"""By point; empty but in tests."""


async def probe(point: Point, *about: Any) -> None:
    """Let whoever listens at a point act before it goes on."""
    listener = listeners.get(point)
    if listener is not None:
        await listener(*about)
