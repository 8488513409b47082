"""What a check found: how many differences of each kind, and the first few of them in words."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

EXAMPLES_MAX = 3
"""Of each kind; one broken rule usually breaks thousands of records."""


@dataclass(slots=True)
class Findings:
    """Differences by kind; none at all is a pass."""

    differences: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """What was looked at, so that a pass over nothing can be seen."""

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def add(self, kind: str, example: str) -> None:
        """Note one difference."""
        self.differences[kind] += 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES_MAX:
            examples.append(example)

    def unless(self, holds: bool, kind: str, example: Callable[[], str]) -> None:
        """Note one difference unless a rule holds; the words are only made when they are needed."""
        if not holds:
            self.add(kind, example())

    def text(self) -> str:
        """The whole report."""
        lines = [", ".join(f"{name} {count:,}" for name, count in self.counts.items())]
        for kind, number in self.differences.most_common():
            lines.append(f"DIFFERENT ({number:,}): {kind}")
            lines += [f"    {example}" for example in self.examples[kind]]
        lines.append("verdict: " + ("exact" if self.ok else f"{self.differences.total():,} differences"))
        return "\n".join(lines)
