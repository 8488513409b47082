"""What taking back some of an organization's changes comes to. Pure.

Its history is walked back from the latest change. A change that was chosen is taken back where nobody has touched the
same since: then what it changed is put to what it was before. One that was not chosen stays, and whatever it touched
is later work, which an older change may not overwrite: that is a conflict. What is left at the end is one difference,
between the organization as it is and as it shall be, and at most four commands for it, however many changes there were.

Declined: a command for each change. A script that went wild over an organization for an hour would be taken back in
as many steps as it made, past every subscriber.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from org_events.commands import (
    Command,
    DeactivateOrganization,
    DeleteOrganization,
    IfCurrent,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_events.events import EventType
from org_service.domain.organization import COMPARED_FIELDS

EXISTS: Final = "exists"
"""Stands for whether there is an organization, beside the fields of one."""
_FIELDS: Final = tuple(field for field in COMPARED_FIELDS if field != "deactivated")
_NOT_MADE: Final = frozenset({EventType.CREATED, EventType.RESTORED})
"""Taken back by a delete, so nothing may have followed."""

State = Mapping[str, Any]
"""An organization as published, or the members that are compared."""


class Past(NamedTuple):
    """One change of an organization."""

    version: int
    event_type: str
    changed: Sequence[str]
    before: State | None
    after: State | None
    actor: str | None
    chosen: bool
    """Whether it shall be taken back."""


class Undoing(NamedTuple):
    """What is to be done to one organization."""

    org_id: UUID
    name: str
    """That it has, or had when it was deleted."""
    version: int
    """Of its last change, which it is judged by."""
    before: State | None
    """As it is; None where it is deleted."""
    after: State | None
    """As it will be."""
    taken_back: int
    """Changes."""
    commands: tuple[Command, ...]
    """In order; none where nothing is to be done."""
    conflicts: tuple[str, ...]
    """Why changes can't be taken back."""
    done_before: int
    """Changes that are taken back already, by whomever."""


class _Walk:
    """Back through one history."""

    def __init__(self, last: Past) -> None:
        stored = last.after or last.before or {}
        self.exists = last.after is not None
        self.fields: dict[str, Any] = {field: stored.get(field) for field in COMPARED_FIELDS}
        self.later: dict[str, Past] = {}
        """By what it touched, the earliest change that stays."""
        self.taken_back = 0
        self.done_before = 0
        self.conflicts: list[str] = []

    def step(self, change: Past) -> None:
        touched = _touched(change)
        if change.chosen:
            if self._is_undone(change) and any(each in self.later for each in touched):
                self.done_before += 1
            elif (why := self._obstacle(change, touched)) is None:
                self._take_back(change)
                return
            else:
                self.conflicts.append(f"version {change.version}: {why}")
        self.later |= dict.fromkeys(touched, change)

    def _obstacle(self, change: Past, touched: Sequence[str]) -> str | None:
        if change.event_type in _NOT_MADE:
            since = next(iter(self.later.values()), None)
            return None if since is None else f"changed since, {_by(since)}"
        if change.event_type != EventType.DELETED and not self.exists:
            since = self.later.get(EXISTS)
            return "deleted" if since is None else f"deleted since, {_by(since)}"
        for each in touched:
            if each in self.later:
                what = "restored or deleted" if each == EXISTS else f"{each} changed"
                return f"{what} since, {_by(self.later[each])}"
        return None

    def _is_undone(self, change: Past) -> bool:
        if change.event_type in _NOT_MADE:
            return not self.exists
        if change.event_type == EventType.DELETED:
            return self.exists
        before = change.before or {}
        return self.exists and all(self.fields[each] == before.get(each) for each in change.changed)

    def _take_back(self, change: Past) -> None:
        self.taken_back += 1
        if change.event_type in _NOT_MADE:
            self.exists = False
            return
        before = change.before or {}
        if change.event_type == EventType.DELETED:
            self.exists = True
            self.fields = {field: before.get(field) for field in COMPARED_FIELDS}
            return
        for field in change.changed:
            if field in self.fields:
                self.fields[field] = before.get(field)


def undo(org_id: UUID, history: Sequence[Past]) -> Undoing:
    """What taking back the chosen changes of one organization comes to.

    Args:
        org_id: Whose.
        history: From the first chosen change, or before it, to the last change of all; in order, without a gap.
    """
    last = history[-1]
    if last.after is None and last.before is None:  # what a change was is gone with its organization
        erased = ("it was erased, and there is nothing to bring back",)
        return Undoing(org_id, "", last.version, None, None, 0, (), erased, 0)
    walk = _Walk(last)
    for change in reversed(history):
        walk.step(change)
    stored = last.after or last.before or {}
    before = None if last.after is None else {field: stored.get(field) for field in COMPARED_FIELDS}
    after = dict(walk.fields) if walk.exists else None
    conflicts, commands = list(walk.conflicts), ()
    try:
        commands = tuple(_commands(org_id, last, after))
    except _ImpossibleError as impossible:
        conflicts.append(str(impossible))
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        conflicts.append(f"what it was is not valid any more: {wrong}")
    return Undoing(
        org_id=org_id,
        name=stored["name"],
        version=last.version,
        before=before,
        after=after if commands else before,
        taken_back=walk.taken_back if commands else 0,
        commands=commands,
        conflicts=tuple(conflicts),
        done_before=walk.done_before,
    )


class _ImpossibleError(Exception):
    """No command leads there."""


def _commands(org_id: UUID, last: Past, target: State | None) -> Iterator[Command]:
    """The way from the last change to what shall be; each is rejected where somebody was faster.

    Fields are guarded by their values, so that later work on others is no obstacle; what has no field is guarded by
    the version, which is one more with each command.
    """
    version, exists = last.version, last.after is not None
    if target is None:
        if exists:
            yield DeleteOrganization(org_id=org_id, expected_version=version)
        return
    if not exists:
        yield RestoreOrganization(org_id=org_id, expected_version=version)
        version += 1
    stored = last.after or last.before or {}
    changed = [field for field in _FIELDS if stored.get(field) != target[field]]
    was_deactivated, deactivated = bool(stored.get("deactivated")), bool(target["deactivated"])
    if changed and was_deactivated and deactivated:
        raise _ImpossibleError("it is deactivated: reactivate it first, and plan again")
    if was_deactivated and not deactivated:
        yield ReactivateOrganization(org_id=org_id, expected_version=version)
        version += 1
    if changed:
        yield UpdateOrganization.model_validate(
            {
                "org_id": org_id,
                "if_current": IfCurrent.model_validate({field: stored.get(field) for field in changed}),
                **{field: target[field] for field in changed},
            }
        )
        version += 1
    if deactivated and not was_deactivated:
        yield DeactivateOrganization(org_id=org_id, expected_version=version)


def _touched(change: Past) -> Sequence[str]:
    if change.event_type == EventType.CREATED:
        return (EXISTS, *COMPARED_FIELDS)
    if change.event_type in (EventType.RESTORED, EventType.DELETED):
        return (EXISTS,)
    return change.changed


def _by(change: Past) -> str:
    return f"by {change.actor or 'nobody named'} at version {change.version}"
