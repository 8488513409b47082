"""A view of what a handler is given that notes what the handler reads of it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from pydantic import BaseModel

from org_events.testing.changes import STATE_TOPIC, DeliveredChange
from org_events.testing.golden import Message
from org_events.testing.usage import WHOLE, Usage

_OF_STATE = {"version": "ce_orgversion", "position": "ce_position"}
"""What stands in headers of `orgs.state`, which has no other place for it."""

Note = Callable[[str], None]


def track(given: Any, message: Message, usage: Usage) -> Any:
    """The view. What isn't a `DeliveredChange` is handed over as it is, and counts as read whole."""
    usage.note_message(message.message)
    if not isinstance(given, DeliveredChange):
        usage.note_body(message.message, WHOLE)
        for name in message.header:
            usage.note_header(message.message, name)
        return given
    return _View(given, "", lambda path: _note(usage, message, path))


def _note(usage: Usage, message: Message, path: str) -> None:
    """From the attribute of a change to the place on the wire."""
    first, _, rest = path.partition(".")
    if first == "type":
        usage.note_header(message.message, "ce_type")
    elif first == "headers":
        if rest:
            usage.note_header(message.message, rest)
    elif message.topic != STATE_TOPIC:
        usage.note_body(message.message, path)
    elif first in _OF_STATE:
        usage.note_header(message.message, _OF_STATE[first])
    elif first == "after" and rest:
        usage.note_body(message.message, rest)


class _View:
    """Reads as what it shows, and says what is read."""

    __slots__ = ("_at", "_shown", "_tell")

    def __init__(self, shown: Any, at: str, tell: Note) -> None:
        self._shown, self._at, self._tell = shown, at, tell

    @property
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride] - so that isinstance() holds
        return cast("type[Any]", type(self._shown))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._shown, name)
        return self._show(name, value) if name in _members(self._shown) else self._whole(value)

    def __getitem__(self, name: Any) -> Any:
        return self._show("[]" if isinstance(name, int) else str(name), self._shown[name])

    def __iter__(self) -> Iterator[Any]:
        return iter(self._whole(self._shown))

    def __len__(self) -> int:
        return len(self._shown)

    def __contains__(self, item: object) -> bool:
        return item in self._whole(self._shown)

    def __bool__(self) -> bool:
        return bool(self._shown)

    def __eq__(self, other: object) -> bool:
        return self._whole(self._shown) == (other._shown if type(other) is _View else other)

    def __hash__(self) -> int:
        return hash(self._whole(self._shown))

    def __repr__(self) -> str:
        return repr(self._shown)

    def _whole(self, value: Any) -> Any:
        self._tell(f"{self._at}.{WHOLE}".removeprefix("."))
        return value

    def _show(self, name: str, value: Any) -> Any:
        at = f"{self._at}.{name}" if self._at else name
        self._tell(at)
        return _View(value, at, self._tell) if isinstance(value, BaseModel | Mapping) else value


def _members(shown: Any) -> set[str]:
    if isinstance(shown, BaseModel):
        return {*type(shown).model_fields}
    return {field.name for field in fields(shown)} if is_dataclass(shown) else set()
