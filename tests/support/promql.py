"""What a PromQL expression names: metrics, labels, values. Enough of the language for our own rules and panels."""

import re
from typing import NamedTuple

FUNCTIONS = frozenset({"rate", "increase", "histogram_quantile", "time", "vector", "absent"})
AGGREGATIONS = frozenset({"sum", "max", "min", "count", "avg"})
GROUPINGS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
WORDS = frozenset({"or", "and", "unless", "offset", "bool"})
_TOKEN = re.compile(
    r'\s+|(?P<name>[A-Za-z_:][\w:]*)|(?P<range>\[[^\]]+\])|(?P<text>"(?:[^"\\]|\\.)*")|(?P<number>\d+(?:\.\d+)?[smhd]?)'
    r"|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/^%(){},=<>])"
)
_RANGE = re.compile(r"\[(\d+[smhd]|\$__rate_interval)\]")


class Matcher(NamedTuple):
    """A condition on a label."""

    label: str
    operator: str
    value: str


class Selector(NamedTuple):
    """A metric, as an expression chooses its series."""

    metric: str
    matchers: tuple[Matcher, ...]
    counted: bool
    """Whether it stands in `rate` or `increase`."""


class Named(NamedTuple):
    """What an expression names."""

    selectors: tuple[Selector, ...]
    grouped: frozenset[str]
    """Labels that it groups by."""


def parse(expression: str) -> Named:
    """Take an expression apart.

    Raises:
        ValueError: It isn't one, or has something that isn't known here.
    """
    tokens = _split(expression)
    selectors: list[Selector] = []
    grouped: set[str] = set()
    at = depth = 0
    function = ""
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if text in "()":
            depth += 1 if text == "(" else -1
            if depth < 0:
                raise ValueError(f"{expression}: a ) too many")
        elif kind == "name" and text in GROUPINGS:
            labels, at = _read_labels(tokens, at + 1)
            grouped |= labels
        elif kind == "name" and (text in FUNCTIONS or text in AGGREGATIONS):
            if following not in ("(", "by", "without"):
                raise ValueError(f"{expression}: {text} of nothing")
            function = text
        elif kind == "name" and text not in WORDS:
            matchers: tuple[Matcher, ...] = ()
            if following == "{":
                matchers, at = _read_matchers(tokens, at + 2)
            ranged = at + 1 < len(tokens) and tokens[at + 1][0] == "range"
            if ranged != (function in ("rate", "increase")):
                raise ValueError(f"{expression}: {text} has a range and no rate, or the other way around")
            selectors.append(Selector(text, matchers, ranged))
            function = ""
        elif kind == "range" and not _RANGE.fullmatch(text):
            raise ValueError(f"{expression}: {text} is no range")
        at += 1
    if depth:
        raise ValueError(f"{expression}: a ) is missing")
    return Named(tuple(selectors), frozenset(grouped))


def _split(expression: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        if found is None:
            raise ValueError(f"{expression}: what is {expression[at:]!r}?")
        if found.lastgroup is not None:
            tokens.append((found.lastgroup, found.group()))
        at = found.end()
    return tokens


def _read_labels(tokens: list[tuple[str, str]], at: int) -> tuple[set[str], int]:
    end = tokens.index(("sign", ")"), at)
    return {text for kind, text in tokens[at:end] if kind == "name"}, end


def _read_matchers(tokens: list[tuple[str, str]], at: int) -> tuple[tuple[Matcher, ...], int]:
    end = tokens.index(("sign", "}"), at)
    inside = [text for _, text in tokens[at:end] if text != ","]
    if len(inside) % 3:
        raise ValueError(f"{inside} are no matchers")
    return tuple(
        Matcher(label, operator, value[1:-1])
        for label, operator, value in zip(inside[::3], inside[1::3], inside[2::3], strict=True)
    ), end
