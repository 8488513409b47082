"""What a check comes to, and what it is about."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

GUARANTEES: Final[Mapping[int, str]] = {
    1: "a command takes effect at most once",
    2: "every readable command gets exactly one final outcome",
    3: "change, outcome and event are one transaction; what is committed is published",
    4: "each change is published exactly once and in order",
    5: "orgs.state folds to the organizations",
    6: "an outage only delays",
    7: "one bad command never blocks another organization",
    8: "nobody changes or learns what their role does not allow",
    9: "nothing an operator does doubles, loses or reorders a change",
    10: "a bad release parks nothing",
    11: "what Kafka acknowledged and lost is noticed, and published again",
    12: "a subscriber that uses the kit ends with the service's state",
}
"""By the numbers of the README."""


class Verdict(StrEnum):
    """What holds of a guarantee by one of the things that it stands on."""

    HOLDS = "holds"
    WEAK = "weak"
    """It holds until something breaks that ought to be able to break: one disk, one machine, one login."""
    UNKNOWN = "unknown"
    """It could not be seen."""
    VOID = "void"
    """Nobody can rely on it."""


SEVERITY: Final = tuple(Verdict)
"""The later, the worse."""


class Finding(NamedTuple):
    """One thing that guarantees stand on."""

    guarantees: Sequence[int]
    about: str
    """What was looked at."""
    verdict: Verdict
    found: str
    advice: str = ""
    """What to do; empty where it holds."""


def holds(guarantees: Sequence[int], about: str, found: str) -> Finding:
    """All is well."""
    return Finding(guarantees, about, Verdict.HOLDS, found)
