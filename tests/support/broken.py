"""Builds of the service that are broken, wholly or in part: what a worker is given to decide with."""

from collections.abc import Callable
from typing import Any

from org_service.domain.decide import Decision, decide


class Build:
    """Raises on the commands that `fails` names, and decides the others."""

    def __init__(self, fails: Callable[[Any], bool] = lambda _: True) -> None:
        """Make one; it raises on everything if not told otherwise."""
        self.fails = fails

    def __call__(self, command: Any, *rest: Any, **more: Any) -> Decision:
        """As `decide`."""
        if self.fails(command):
            raise ZeroDivisionError("a text that may quote the payload")
        return decide(command, *rest, **more)
