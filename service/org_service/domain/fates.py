"""What became of a command, and how two accounts of it differ: what was recorded, and what a rehearsal says. Pure.

When it was recorded is left out; the moments of organizations are not, because a rehearsal decides as of then.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, cast

import orjson

from org_events.results import Outcome, ProblemType
from org_service.domain.outcomes import NewOutcome

FateKind = Literal["decided", "parked", "duplicate", "command_id_reused", "redelivered"]


class Fate(NamedTuple):
    """What became of one record of `orgs.commands`."""

    kind: FateKind
    row: NewOutcome | None = None
    """Of a command that was decided."""
    reason: str | None = None
    """Why it is parked; None where the same command was parked before."""

    @property
    def word(self) -> str:
        """As people see it: `applied 200`, `rejected 409 name-taken`, `parked handler_raised`, `duplicate`."""
        if self.row is None:
            return self.kind if self.reason is None else f"{self.kind} {self.reason}"
        said = f"{self.row.outcome} {self.row.code}"
        kind = problem_type(self.row)
        return said if kind is None else f"{said} {kind.rpartition(':')[2]}"


class Unlike(NamedTuple):
    """One field that differs."""

    recorded: Any
    rehearsed: Any


_COMPARED: Final = NewOutcome._fields[: NewOutcome._fields.index("recorded_at")]
_JSON: Final = frozenset({"changed", "before", "after", "problem"})
ACCESS_PROBLEMS: Final = frozenset({ProblemType.NOT_FOUND.value, ProblemType.FORBIDDEN.value})


def problem_type(row: NewOutcome) -> str | None:
    """Of a rejected command."""
    return None if row.problem is None else str(orjson.loads(row.problem)["type"])


def compare(recorded: Fate, rehearsed: Fate) -> Mapping[str, Unlike]:
    """The fields that differ, by name; of organizations and problems each member (`after.name`, `problem.detail`)."""
    was, now = recorded.row, rehearsed.row
    if was is None or now is None:
        return {} if recorded == rehearsed else {"outcome": Unlike(recorded.word, rehearsed.word)}
    found: dict[str, Unlike] = {}
    if was[: len(_COMPARED)] != now[: len(_COMPARED)]:
        pairs: Any = zip(_COMPARED, was, now, strict=False)
        for field, old, new in pairs:
            if old == new:
                continue
            if field in _JSON:
                _compare_members(field, _parsed(old), _parsed(new), found)
            elif field == "request_digest":
                found[field] = Unlike(old.hex(), new.hex())
            else:
                found[field] = Unlike(old, new)
    return found


def _parsed(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _compare_members(field: str, old: Any, new: Any, found: dict[str, Unlike]) -> None:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        was, now = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        for member in was | now:
            _compare_members(f"{field}.{member}", was.get(member), now.get(member), found)
    else:
        found[field] = Unlike(old, new)


def leaves_another_state(recorded: Fate, rehearsed: Fate, unlike: Mapping[str, Unlike]) -> bool:
    """Whether the organization is another one behind the command: then later differences follow from this one."""
    if not unlike:
        return False
    rows = [each.row for each in (recorded, rehearsed)]
    if any(fate.kind == "parked" for fate in (recorded, rehearsed)):
        return True
    changing = [row for row in rows if row is not None and row.outcome == Outcome.APPLIED]
    return bool(changing) and any(
        field in {"event_type", "version", "outcome", "org_id"} or field.startswith("after") for field in unlike
    )
