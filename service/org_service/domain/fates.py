"""What became of a command, and how two accounts of it differ: what was recorded, and what a rehearsal says. Pure.

Moments are left out, but for whether an organization is deactivated: a rehearsal decides later, and nothing is decided
by the clock.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

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


_PLAIN: Final = ("outcome", "code", "version", "event_type", "command_type", "org_id", "actor")
_MOMENTS: Final = ("created_at", "updated_at")
ACCESS_PROBLEMS: Final = frozenset({ProblemType.NOT_FOUND.value, ProblemType.FORBIDDEN.value})


def problem_type(row: NewOutcome) -> str | None:
    """Of a rejected command."""
    return None if row.problem is None else str(orjson.loads(row.problem)["type"])


def compare(recorded: Fate, rehearsed: Fate) -> Mapping[str, Unlike]:
    """The fields that differ, by name; of organizations and problems each member (`after.name`, `problem.detail`)."""
    if recorded.row is None or rehearsed.row is None:
        if recorded == rehearsed:
            return {}
        return {"outcome": Unlike(recorded.word, rehearsed.word)}
    return _compare_rows(recorded.row, rehearsed.row)


def _compare_rows(was: NewOutcome, now: NewOutcome) -> Mapping[str, Unlike]:
    found: dict[str, Unlike] = {}
    if (
        was.outcome != now.outcome
        or was.version != now.version
        or was.event_type != now.event_type
        or was.code != now.code
        or was.actor != now.actor
        or was.org_id != now.org_id
        or was.command_type != now.command_type
    ):
        for field in _PLAIN:
            old, new = getattr(was, field), getattr(now, field)
            if old != new:
                found[field] = Unlike(old, new)
    if was.changed != now.changed:
        found["changed"] = Unlike(_parsed(was.changed), _parsed(now.changed))
    if was.request_digest != now.request_digest:
        found["request_digest"] = Unlike(was.request_digest.hex(), now.request_digest.hex())
    if was.problem != now.problem:
        _compare_members("problem", _parsed(was.problem), _parsed(now.problem), found)
    for field, old, new in (("before", was.before, now.before), ("after", was.after, now.after)):
        if old != new:
            _compare_members(field, _organization(old), _organization(new), found)
    return found


def _parsed(text: str | None) -> Any:
    return None if text is None else orjson.loads(text)


def _organization(text: str | None) -> Any:
    if text is None:
        return None
    document = orjson.loads(text)
    for moment in _MOMENTS:
        document.pop(moment, None)
    document.pop("deactivated_at", None)  # `deactivated` says whether
    return document


def _compare_members(field: str, old: Any, new: Any, found: dict[str, Unlike]) -> None:
    if old == new:
        return
    if old is None or new is None:
        found[field] = Unlike(old, new)
        return
    for member in {**old, **new}:
        if old.get(member) != new.get(member):
            found[f"{field}.{member}"] = Unlike(old.get(member), new.get(member))


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
