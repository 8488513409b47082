"""What a verification says: a verdict for each comparison, and each difference by name. Pure."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

DIFFERENCES_MAX: Final = 1_000
"""Named ones; one fault may touch every row, and whoever has seen a thousand acts on the cause."""


class Verdict(StrEnum):
    """What a comparison comes to; the worst of all is that of the verification, in this order."""

    EQUAL = "equal"
    INCOMPLETE = "incomplete"
    """All that is still there is equal; retention, or an operator's `orgs journal advance`, took the rest."""
    INCONCLUSIVE = "inconclusive"
    """It could not be told now: an outage, an open transaction, a relay that is behind. Try again."""
    DIFFERS = "differs"
    ERROR = "error"
    """The verification itself failed, or what it reads is broken."""


class Kind(StrEnum):
    """What a difference is; labels of a metric."""

    ORGANIZATION_DIFFERS = "organization_differs"
    ORGANIZATION_MISSING = "organization_missing"
    ORGANIZATION_UNKNOWN = "organization_unknown"
    JOURNAL_HOLE = "journal_hole"
    JOURNAL_VERSIONS = "journal_versions"
    JOURNAL_CHANGED = "journal_changed"
    TWO_OUTCOMES = "two_outcomes"
    EVENT_MISSING = "event_missing"
    EVENT_DIFFERS = "event_differs"
    EVENT_DOUBLED = "event_doubled"
    EVENT_FOREIGN = "event_foreign"
    RESULT_MISSING = "result_missing"
    RESULT_DIFFERS = "result_differs"
    RESULT_FOREIGN = "result_foreign"
    STATE_MISSING = "state_missing"
    STATE_DIFFERS = "state_differs"
    STATE_FOREIGN = "state_foreign"
    TOMBSTONE_MISSING = "tombstone_missing"
    FACT_DIFFERS = "fact_differs"


_REMEDIES: Final[dict[Kind, str]] = {
    Kind.ORGANIZATION_DIFFERS: "`orgs repair` writes the row as the journal has it",
    Kind.ORGANIZATION_MISSING: "`orgs repair` writes the row as the journal has it",
    Kind.ORGANIZATION_UNKNOWN: "nothing is repaired: the journal doesn't know it; find out who wrote it",
    Kind.JOURNAL_HOLE: "nothing is repaired: restore the journal from a backup",
    Kind.JOURNAL_VERSIONS: "nothing is repaired: restore the journal's rows from a backup",
    Kind.JOURNAL_CHANGED: "nothing is repaired: the topics agree with each other, so it is the journal's row that was "
    "changed; restore it from a backup",
    Kind.TWO_OUTCOMES: "nothing is repaired: publishers were told the first; restore the journal from a backup",
    Kind.EVENT_MISSING: "`orgs repair` sends it again",
    Kind.EVENT_DIFFERS: "`orgs repair` sends the right one again; subscribers have seen both",
    Kind.EVENT_DOUBLED: "nothing is repaired: a record can't be taken back; subscribers that go by version skip it",
    Kind.EVENT_FOREIGN: "nothing is repaired: a record can't be taken back; find out who writes there",
    Kind.RESULT_MISSING: "`orgs repair` sends it again",
    Kind.RESULT_DIFFERS: "`orgs repair` sends the right one again",
    Kind.RESULT_FOREIGN: "nothing is repaired: a record can't be taken back; find out who writes there",
    Kind.STATE_MISSING: "`orgs repair` sends it again",
    Kind.STATE_DIFFERS: "`orgs repair` sends the right one again, which wins",
    Kind.STATE_FOREIGN: "nothing is repaired: the journal doesn't know the organization; find out who writes there, "
    "and send a tombstone",
    Kind.TOMBSTONE_MISSING: "`orgs repair` sends the tombstone again",
    Kind.FACT_DIFFERS: "`orgs repair` writes the row as the topic has it",
}
REPAIRED: Final = frozenset(kind for kind, remedy in _REMEDIES.items() if remedy.startswith("`orgs repair`"))


class Difference(NamedTuple):
    """One thing that two sources tell differently."""

    kind: Kind
    subject: str
    """An organization's id, or a key."""
    left: str
    """The source that is held to be right."""
    right: str
    """The other one."""
    field: str = ""
    """What differs, empty for the whole."""
    expected: Any = None
    """As `left` has it."""
    found: Any = None
    """As `right` has it."""
    position: int | None = None

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES[self.kind]


@dataclass(slots=True)
class Comparison:
    """Two sources, compared."""

    name: str
    verdict: Verdict = Verdict.EQUAL
    checked: int = 0
    """Things that were compared."""
    why: str = ""
    """It is not simply equal."""

    def lower_to(self, verdict: Verdict, why: str) -> None:
        """Say a worse verdict; the worst one stays."""
        if _RANK[verdict] > _RANK[self.verdict]:
            self.verdict, self.why = verdict, why


_RANK: Final = {verdict: rank for rank, verdict in enumerate(Verdict)}


@dataclass(slots=True)
class Report:
    """What a verification found."""

    position: int
    comparisons: list[Comparison] = field(default_factory=list[Comparison])
    differences: list[Difference] = field(default_factory=list[Difference])
    """The first ones."""
    counts: Counter[str] = field(default_factory=Counter[str])
    """Of all, by kind."""
    notes: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    processor_seconds: float = 0.0
    """Of this process and its children, without Kafka's and Postgres'."""

    @property
    def verdict(self) -> Verdict:
        """The worst of all comparisons."""
        return max((each.verdict for each in self.comparisons), key=_RANK.__getitem__, default=Verdict.EQUAL)

    def comparison(self, name: str) -> Comparison:
        """Begin a comparison."""
        self.comparisons.append(made := Comparison(name))
        return made

    def add(self, comparison: Comparison, differences: Sequence[Difference]) -> None:
        """Add differences to a comparison."""
        for difference in differences:
            comparison.lower_to(Verdict.DIFFERS, "see the differences")
            self.counts[difference.kind] += 1
            if len(self.differences) < DIFFERENCES_MAX:
                self.differences.append(difference)

    @property
    def room(self) -> int:
        """How many more differences are named."""
        return max(0, DIFFERENCES_MAX - len(self.differences))

    @property
    def full(self) -> bool:
        """Whether no more differences are named."""
        return not self.room
