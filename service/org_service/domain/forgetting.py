"""Blanking out what notes say of organizations that are erased: samples, parameters, reasons, errors. Pure.

Notes are texts and JSON that operators' tools kept, about many organizations at once; what they say of the others
stays. An item that mentions an organization by its id loses all its texts but ids and times. Anything else loses the
names, domains and lines of addresses that organizations had, wherever they stand.
"""

import re
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

BLANK: Final = "[erased]"
_WORD: Final = re.compile(r"\w{2,}")
_ID_OR_TIME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[0-9:.]+(Z|[+-][0-9:]+)?")


class Forgotten(NamedTuple):
    """What is to be forgotten."""

    org_ids: Collection[str]
    """As in JSON."""
    values: Collection[str]
    """In any case of letters."""


class NoteIndex:
    """Finds the notes that mention something, among thousands, for thousands of things."""

    def __init__(self) -> None:
        self._by_word: dict[str, set[Hashable]] = {}

    def add(self, key: Hashable, note: Any) -> None:
        """Add a note."""
        for text in _texts(note):
            for word in _WORD.findall(text.casefold()):
                self._by_word.setdefault(word, set()).add(key)

    def find(self, things: Iterable[str]) -> dict[Hashable, list[str]]:
        """Notes that have all the words of things, and of which; whether they mention them, `forget` sees."""
        found: dict[Hashable, list[str]] = {}
        for thing in things:
            words = _WORD.findall(thing.casefold())
            for key in set[Hashable].intersection(*(self._by_word.get(word, set()) for word in words)) if words else ():
                found.setdefault(key, []).append(thing)
        return found


def forget(note: Any, what: Forgotten) -> Any:
    """The note without it; equal to what was given where there is nothing of it."""
    if not what.org_ids and not what.values:
        return note
    values = sorted(what.values, key=len, reverse=True)  # a name may be part of another
    pattern = re.compile("|".join(map(re.escape, values)), re.IGNORECASE) if values else None
    return _forget(note, what.org_ids, pattern)


def blank(note: Any) -> Any:
    """The note without any text but ids and times."""
    if isinstance(note, str):
        return _blank(note)
    if isinstance(note, Mapping):
        return {name: blank(each) for name, each in cast("Mapping[str, Any]", note).items()}
    if isinstance(note, list):
        rows = cast("list[Any]", note)
        return [[pair[0], blank(pair[1])] for pair in rows] if _are_pairs(rows) else [blank(each) for each in rows]
    return note


def is_blank(item: Any) -> bool:
    """Whether something of an item was blanked out."""
    return BLANK in _texts(item)


def mentions(note: Any, org_ids: Collection[str]) -> bool:
    """Whether an item of a note says more of an organization than its id."""
    return forget(note, Forgotten(org_ids, ())) != note


def _forget(note: Any, org_ids: Collection[str], pattern: re.Pattern[str] | None) -> Any:
    if isinstance(note, str):
        return note if pattern is None else pattern.sub(BLANK, note)
    if isinstance(note, Mapping):
        items = cast("Mapping[str, Any]", note)
        if _is_about(items.values(), org_ids):
            return {name: _blank(each) for name, each in items.items()}
        return {name: _forget(each, org_ids, pattern) for name, each in items.items()}
    if isinstance(note, list):
        rows = cast("list[Any]", note)
        if _are_pairs(rows) and _is_about((pair[1] for pair in rows), org_ids):
            return [[pair[0], _blank(pair[1])] for pair in rows]
        return [_forget(each, org_ids, pattern) for each in rows]
    return note


def _is_about(values: Any, org_ids: Collection[str]) -> bool:
    """Whether one of the texts is, or holds, an id: of the item itself, not of items in it."""
    return any(isinstance(each, str) and any(org_id in each for org_id in org_ids) for each in values)


def _blank(value: Any) -> Any:
    if isinstance(value, str):
        return value if _ID_OR_TIME.fullmatch(value) else BLANK
    return BLANK if isinstance(value, list | Mapping) else value


def _are_pairs(rows: Sequence[Any]) -> bool:
    """Whether it is an object whose members have an order."""
    return bool(rows) and all(isinstance(each, list) and len(cast("list[Any]", each)) == 2 for each in rows)


def _texts(note: Any) -> Iterator[str]:
    if isinstance(note, str):
        yield note
    elif isinstance(note, Mapping):
        for each in cast("Mapping[str, Any]", note).values():
            yield from _texts(each)
    elif isinstance(note, list):
        for each in cast("list[Any]", note):
            yield from _texts(each)
