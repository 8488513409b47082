"""Named points in the course of the work at which a test waits, fails or kills, in place of replacing what is private.

In production nobody listens, and a point costs one comparison:

    if probes.listeners:
        await probe("apply.before_transaction", self)
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, cast

Point = Literal[
    "apply.before_read",
    "apply.before_decide",
    "apply.before_transaction",
    "apply.after_lock",
    "apply.before_positions",
    "apply.after_commit",
    "apply.before_replies",
    "reference.before_transaction",
    "reference.keys_read",
    "worker.before_apply",
    "worker.before_poll",
    "worker.before_look_at_progress",
    "worker.before_look_for_records",
    "relay.before_try_to_lead",
    "relay.before_read",
    "relay.before_publish",
    "relay.before_commit",
    "relay.after_publish",
    "edge.before_look",
    "serving.last_answer_written",
    "serving.read_ahead",
    "operate.ends_found",
    "operate.after_commit",
    "operate.after_publish",
    "operate.after_take",
    "operate.commands_grown",
    "operate.topics_grown",
    "operate.before_commit",
    "operate.before_publish",
    "verify.after_snapshot",
    "kafka.before_read_all",
    "store.before_connect",
    "store.after_connect",
]
"""Where."""
Listener = Callable[..., Awaitable[object]]
"""Told what the point knows; what it raises is raised at the point."""
ImmediateListener = Callable[..., object]
"""The same, for a point that is passed by `notify`."""

listeners: Final[dict[Point, Listener | ImmediateListener]] = {}
"""By point; empty but in tests."""


async def probe(point: Point, *about: Any) -> None:
    """Let whoever listens at a point act before it goes on."""
    listener = listeners.get(point)
    if listener is not None:
        await cast("Listener", listener)(*about)


def notify(point: Point, *about: Any) -> None:
    """As `probe`, where nothing can be awaited."""
    listener = listeners.get(point)
    if listener is not None:
        listener(*about)
