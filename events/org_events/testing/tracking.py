"""A view of what a handler is given that notes what the handler reads of it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel

from org_events.events import OrganizationEvent
from org_events.testing.changes import STATE_TOPIC
from org_events.testing.golden import Message
from org_events.testing.usage import WHOLE, Usage

_OF_STATE = {"version": "ce_orgversion", "position": "ce_position"}
"""What stands in headers of `orgs.state`, which has no other place for it."""
_OF_CHANGE = {"type", "headers", "body", "value", *OrganizationEvent.model_fields}
"""Attributes of a change that are read from its record; others (the kit's `transaction`, its `kind`) say nothing."""

Note = Callable[[str], None]


def track(given: Any, message: Message, usage: Usage) -> Any:
    """The view. A record, or whatever else has no `org_id`, is handed over as it is, and counts as read whole."""
    usage.note_message(message.message)
    if not hasattr(given, "org_id"):
        usage.note_body(message.message, WHOLE)
        for name in message.header:
            usage.note_header(message.message, name)
        return given
    return _Change(given, "", lambda path: _note(usage, message, path))


def _note(usage: Usage, message: Message, path: str) -> None:
    """From the attribute of a change to the place on the wire."""
    first, _, rest = path.partition(".")
    from_state = message.topic == STATE_TOPIC
    if first in {"body", "value", WHOLE}:
        usage.note_body(message.message, rest or WHOLE)
    elif first == "headers":
        usage.note_header(message.message, rest or WHOLE)
    elif from_state and first in _OF_STATE:
        usage.note_header(message.message, _OF_STATE[first])
    elif from_state and first == "after" and rest:
        usage.note_body(message.message, rest)
    elif not from_state and first == "type":
        usage.note_header(message.message, "ce_type")
    elif not from_state:
        usage.note_body(message.message, path)


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
        return self._show(name, value) if name in self._members() else self._beside(value)

    def __getitem__(self, name: Any) -> Any:
        return self._show("[]" if isinstance(name, int) else str(name), self._shown[name])

    def get(self, name: str, default: Any = None) -> Any:
        """As of a mapping."""
        return self._show(name, self._shown.get(name, default))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._whole(self._shown))

    def __len__(self) -> int:
        return len(self._shown)

    def __contains__(self, item: object) -> bool:
        return item in self._whole(self._shown)

    def __bool__(self) -> bool:
        return bool(self._shown)

    def __eq__(self, other: object) -> bool:
        return self._whole(self._shown) == (other._shown if isinstance(other, _View) else other)

    def __hash__(self) -> int:
        return hash(self._whole(self._shown))

    def __repr__(self) -> str:
        return repr(self._shown)

    def _members(self) -> Collection[str]:
        return type(self._shown).model_fields if isinstance(self._shown, BaseModel) else ()

    def _beside(self, value: Any) -> Any:
        """What isn't a member: a method that may look at all of them."""
        return self._whole(value)

    def _whole(self, value: Any) -> Any:
        self._tell(f"{self._at}.{WHOLE}".removeprefix("."))
        return value

    def _show(self, name: str, value: Any) -> Any:
        at = f"{self._at}.{name}" if self._at else name
        if self._at or not isinstance(value, Mapping):  # of all headers, or a body, only what is taken out counts
            self._tell(at)
        return _View(value, at, self._tell) if isinstance(value, BaseModel | Mapping) else value


class _Change(_View):
    """The outermost view."""

    __slots__ = ()

    def _members(self) -> Collection[str]:
        return _OF_CHANGE

    def _beside(self, value: Any) -> Any:
        return value
