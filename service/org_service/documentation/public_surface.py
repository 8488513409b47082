"""The public surface of the contract package as a list: what other teams import, and how it is called.

A line is a name with its parameters; `=` after one says that it has a default. A diff of this file is what a release
changes for programs; types are pyright's to check.
"""

import inspect
from collections.abc import Iterator
from enum import Enum
from types import ModuleType
from typing import Any, Final, cast

import org_events
from org_events import publishing, subscribing, testing
from org_events.publishing import outbox
from org_events.testing import publisher

FACES: Final[tuple[ModuleType, ...]] = (org_events, publishing, outbox, subscribing, testing, publisher)
"""The packages that have an `__all__` for other teams."""


def make_surface() -> str:
    """The text of the file."""
    return "".join(f"{line}\n" for face in FACES for name in sorted(face.__all__) for line in _describe(face, name))


def _describe(face: ModuleType, name: str) -> Iterator[str]:
    value: Any = getattr(face, name)
    full = f"{face.__name__}.{name}"
    if not isinstance(value, type):
        yield full + (_parameters(value) if inspect.isfunction(value) else "")
    elif issubclass(value, Enum):
        yield f"{full}: {', '.join(str(member.value) for member in value)}"
    else:
        yield full + _parameters(value)
        yield from (f"{full}.{line}" for line in _members(cast("type[Any]", value)))


def _members(described: type) -> Iterator[str]:
    """Its own methods and properties, and those of its private bases; what a public base has stands there."""
    ours = [described, *(each for each in described.__mro__ if each.__name__.startswith("_"))]
    found: dict[str, object] = {name: value for each in reversed(ours) for name, value in vars(each).items()}
    for name, value in sorted(found.items()):
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
            yield name + ("" if isinstance(value, property) else _parameters(value, bound=True))


def _parameters(described: Any, *, bound: bool = False) -> str:
    if isinstance(described, type) and not inspect.isfunction(described.__init__):
        return ""  # of Python itself, which each version describes in its own way
    parameters = list(inspect.signature(described).parameters.values())
    texts: list[str] = []
    for parameter in parameters[1:] if bound else parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not any(text.startswith("*") for text in texts):
            texts.append("*")
        prefix = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        texts.append(f"{prefix}{parameter.name}{'' if parameter.default is parameter.empty else '='}")
    return f"({', '.join(texts)})"
