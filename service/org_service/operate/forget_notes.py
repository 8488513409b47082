"""Blanking out what operators' tools wrote down about organizations, in the transaction that empties these."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from org_service.domain.forgetting import Forgotten, NoteIndex, blank, forget, is_blank
from org_service.store import notes
from org_service.store.database import DatabaseConnection
from org_service.store.notes import MarkNote, OperationNote

_OVERLAP: Final = timedelta(minutes=1)
"""A row becomes visible after the time that it says, at its commit; these are looked at again."""


_KEPT: Final = frozenset({"topic", "where"})
"""Of parameters, where copies were made: `orgs erase --status` looks there."""


class Notes:
    """The notes of operations and marks; read once, and then what is new. Memory grows with their number."""

    def __init__(self) -> None:
        self._operations: dict[UUID, OperationNote] = {}
        self._index = NoteIndex()
        self._since = datetime.min.replace(tzinfo=UTC)

    async def forget(self, conn: DatabaseConnection, org_ids: Collection[UUID], values: Collection[str]) -> None:
        """Blank out organizations, by their ids and by what they were called."""
        ids = {str(org_id) for org_id in org_ids}
        index = await self._read(conn)
        found = index.find([*ids, *values])
        operations: list[OperationNote] = []
        for operation_id, things in found.items():
            note = self._operations.get(operation_id) if isinstance(operation_id, UUID) else None
            if note is not None and (blanked := _blank(note, things, ids)) != note:
                self._operations[note.id] = blanked
                operations.append(blanked)
        await notes.blank_operations(conn, operations)
        marks = await notes.list_marks(conn)
        reasons = NoteIndex()
        for mark in marks:
            reasons.add(mark.name, mark.reason)
        about = reasons.find(values)
        blank = [_blank_mark(mark, about.get(mark.name, ())) for mark in marks]
        await notes.blank_marks(conn, [new for new, mark in zip(blank, marks, strict=True) if new != mark])

    async def _read(self, conn: DatabaseConnection) -> NoteIndex:
        for note in await notes.list_operations(conn, self._since):
            self._operations[note.id] = note
            texts = (note.parameters, note.facts, note.sample, note.notes, note.progress, note.reason, note.error)
            self._index.add(note.id, [*texts])
            self._since = max(self._since, note.changed_at - _OVERLAP)
        return self._index


def _blank(note: OperationNote, things: Collection[str], ids: Collection[str]) -> OperationNote:
    what = Forgotten([each for each in things if each in ids], [each for each in things if each not in ids])
    lines = forget([{"line": line} for line in note.notes], what)  # each is an item of its own
    texts: dict[str, Any] = {"sample": forget(note.sample, what), "reason": forget(note.reason, what)}
    texts["notes"] = [each["line"] for each in lines]
    if note.over:
        texts |= {name: forget(getattr(note, name), what) for name in ("parameters", "facts", "progress", "error")}
        if note.items == len(note.sample) and all(map(is_blank, texts["sample"])):  # of nothing that is still there
            kept = {name: each for name, each in texts["parameters"].items() if name in _KEPT}
            texts["parameters"] = blank(texts["parameters"]) | kept
    return note._replace(**texts)


def _blank_mark(mark: MarkNote, things: Collection[str]) -> MarkNote:
    return mark._replace(reason=forget(mark.reason, Forgotten((), things)))
