"""What a drill is: it plants one fault, says where it shows, knows what mends it, and judges whether it is mended."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from org_service.local.stack import LocalStack
from org_service.settings import Settings

Facts = dict[str, Any]
"""What a drill has to remember of what it planted, as JSON."""


@dataclass(frozen=True)
class Ground:
    """Where drills are held: a local stack, and the settings of whoever works on it."""

    stack: LocalStack
    settings: Settings


class Sight(NamedTuple):
    """Something that an operator sees."""

    where: str
    """Where they look: a page, a metric, a command."""
    shows: str
    """What stands there now."""
    alert: str | None = None
    """The rule of `deploy/grafana/alerts.yaml` that it raises."""


class Symptom(Protocol):
    """Where a fault shows."""

    @property
    def alert(self) -> str | None:
        """The rule of `deploy/grafana/alerts.yaml` that it raises."""
        ...

    async def look(self, ground: Ground) -> Sight | None:
        """Look there now; None while it doesn't show."""
        ...


class Mark(NamedTuple):
    """One thing that a score stands on."""

    what: str
    """It must be so, as a sentence."""
    ok: bool
    found: str = ""
    """What is there instead, or besides."""


class Drill(ABC):
    """One incident. All methods may be called by any process that works in the folder of the stack."""

    name: ClassVar[str]
    call: ClassVar[str]
    """What the operator is told, by whoever noticed."""
    runbook: ClassVar[str]
    """The heading of docs/operating.md that helps, as the fragment of a link."""

    @abstractmethod
    async def plant(self, ground: Ground) -> Facts:
        """Bring the incident about. Everything runs, and nothing is under way, when it is called."""

    @abstractmethod
    def symptoms(self, facts: Facts) -> Sequence[Symptom]:
        """Where it shows, all at once."""

    @abstractmethod
    def remedy(self, facts: Facts) -> Sequence[str]:
        """The commands that mend it, in order."""

    @abstractmethod
    async def judge(self, ground: Ground, facts: Facts) -> Sequence[Mark]:
        """What must be so afterwards, beside what is judged of every drill. Changes nothing that outlasts it."""

    def leaves(self, facts: Facts) -> Collection[str]:
        """Differences that the incident leaves for ever, as `scoring.identify` names them."""
        return ()
