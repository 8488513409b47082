"""How values read to an operator, in a terminal and on the page. Pure."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from org_service.store.operations import Operation

VALUE_CHARS_MAX: Final = 120
"""Of one value in a line; `--json` shows all of it."""

_ADDRESS: Final = ("line1", "line2", "postal_code", "city", "region", "country")


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey, cut to `VALUE_CHARS_MAX`."""
    text = make_printable(text)
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def make_printable(text: str) -> str:
    """`text` without anything that a terminal would obey, all of it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def value(content: Any) -> str:
    """A field's value: text as it is, an address on one line, nothing as `null`."""
    if content is None:
        return "null"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if isinstance(content, dict):
        address = cast("dict[str, Any]", content)
        lines = [address[name] for name in _ADDRESS if address.get(name) is not None]
        return printable(", ".join(map(str, lines or [address])))
    return moment(content) if isinstance(content, datetime) else printable(str(content))


def moment(when: datetime) -> str:
    """Date and time to the second, UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `5 min`, `3.2 h`, `12 d`."""
    if seconds is None:
        return ""
    if seconds < 0:
        return "now"
    for most, divisor, unit in ((10, 1, "s"), (120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h")):
        if seconds < most:
            return f"{seconds / divisor:.{1 if most == 10 or unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def operation_state(operation: "Operation") -> str:
    """The state, with what a clock makes of it: a plan that has expired, a run whose process is gone."""
    return "expired" if operation.expired else "abandoned" if operation.abandoned else operation.state.value


def make_printable_lines(text: str) -> str:
    """As `make_printable`, for a text of several lines."""
    return "\n".join(make_printable(line) for line in text.split("\n"))
