"""Releases of the worker that are broken, wholly or in part: what it is given to decide with."""

from collections.abc import Callable
from typing import Any, Final

from org_service.domain.decide import Decision, decide
from org_service.domain.fold import Decider
from org_service.local.roles import CURRENT

POISON: Final = "1/0"
"""In a name: what the flawed release stumbles over."""


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


def _is_poison(command: Any) -> bool:
    return POISON in str(getattr(command, "name", ""))


FLAWED: Final = "1.4.2-flawed"
BAD: Final = "1.5.0-bad"
RELEASES: Final[dict[str, Decider | None]] = {CURRENT: None, FLAWED: Build(_is_poison), BAD: Build()}
"""What `orgs up` can run its worker as."""
