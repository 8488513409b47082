"""What a rehearsal found: each difference, and how many of which kind."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple
from uuid import UUID

from org_service.domain.fates import Unlike

KINDS_MAX: Final = 200
"""Kinds of differences that are counted apart."""

Because = Literal["policy", "follows", "access", "rules"]
"""Why a command was decided otherwise, as far as a rehearsal can tell:

- `policy`: by the policy in force it would be decided as it was;
- `follows`: its organization, or a name, went another way before in the rehearsal;
- `access`: who may do what differs: memberships, partnerships, staff, or the policy since;
- `rules`: none of these.
"""


class Difference(NamedTuple):
    """One command that the rehearsal decided otherwise."""

    position: int | None
    """In the journal; None where it has no row there."""
    partition: int
    offset: int
    command_id: UUID | None
    org_id: UUID | None
    command_type: str | None
    actor: str | None
    recorded: str
    rehearsed: str
    fields: Mapping[str, Unlike]
    because: Because

    @property
    def kind(self) -> str:
        """What many of them have in common."""
        if self.recorded != self.rehearsed:
            return f"{self.recorded} -> {self.rehearsed}"
        return f"{self.recorded}: {', '.join(self.fields)}"


@dataclass
class Report:
    """How far a rehearsal is, and what it found so far."""

    offsets: int = 0
    """Of the topic, in all partitions, that are to be read."""
    read: int = 0
    """Of these, how many are done."""
    records: int = 0
    """Records that were rehearsed."""
    outcomes: Counter[str] = field(default_factory=Counter[str])
    """As rehearsed."""
    differences: int = 0
    because: Counter[str] = field(default_factory=Counter[str])
    kinds: Counter[str] = field(default_factory=Counter[str])
    left_out: Counter[str] = field(default_factory=Counter[str])
    """Records that were not rehearsed, by why."""
    taken: int = 0
    """Decided commands that were asked for, and that retention has taken from the topic."""
    vouched: int = 0
    """Tokens whose key the issuer no longer lists: they count for whoever they were accepted for."""
    by_token: int = 0
    """Commands that were judged by the policy."""
    seconds: float = 0

    @property
    def rate(self) -> float:
        """Records a second."""
        return self.records / self.seconds if self.seconds else 0.0

    def count(self, difference: Difference) -> None:
        """Count one more."""
        self.differences += 1
        self.because[difference.because] += 1
        kind = difference.kind
        self.kinds[kind if kind in self.kinds or len(self.kinds) < KINDS_MAX else "others"] += 1


Differences = Sequence[Difference]
