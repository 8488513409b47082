"""What a reader of one JSON Schema can't read of what a writer of another one may write.

One question answers them all: a new event for an old reader, a retained event for a new reader, an old command for a
new service. Only the two schemas change places. Members that a reader does not know are ignored; whether losing them is
a breach is for the caller to say. Knows the keywords of our generated schemas, and stops at any other, because a rule
that is not compared is a rule that anybody may break.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

Schema = Mapping[str, Any]

_TEXTS: Final = {"description", "title", "examples", "$defs", "$id", "$schema"}
_STRUCTURE: Final = {"$ref", "anyOf", "type", "properties", "required", "items", "additionalProperties"}
_UPPER: Final = {"maximum": "a number above {}", "maxLength": "longer than {} characters", "maxItems": "more than {}"}
_LOWER: Final = {"minimum": "a number below {}", "minLength": "shorter than {} characters", "minItems": "less than {}"}
_RULES: Final = ("pattern", "format")
NEVER_THERE: Final = "is missing"
"""Of a member that is required and that the writer does not know."""
_KNOWN: Final = {*_TEXTS, *_STRUCTURE, *_UPPER, *_LOWER, *_RULES, "enum", "const"}


@dataclass(frozen=True, slots=True)
class Misfit:
    """One thing that may be written and isn't read.

    Attributes:
        path: The member, `after.primary_address.city`; empty for the whole. `errors[].path` is inside an array.
        kind: `type`, `value`, `rule`, `missing`, `gone` or `closed`.
        what: In words, after the name of the member.
    """

    path: str
    kind: str
    what: str


class Side(NamedTuple):
    """A schema, and the definitions that its references lead to."""

    schema: Schema
    definitions: Mapping[str, Schema]

    def at(self, schema: Schema) -> "Side":
        """A part of it."""
        return Side(schema, self.definitions)

    def variants(self) -> dict[str, "Side"]:
        """The alternatives by their type; one that names no type is only a constant, and is text."""
        if unknown := self.schema.keys() - _KNOWN:
            raise NotImplementedError(f"the gate does not compare {', '.join(sorted(unknown))} yet")
        if "$ref" in self.schema:
            return self.at(self.definitions[self.schema["$ref"].rpartition("/")[2]]).variants()
        if "anyOf" in self.schema:
            found = [pair for part in self.schema["anyOf"] for pair in self.at(part).variants().items()]
            if len(dict(found)) < len(found):
                raise NotImplementedError("the gate does not compare alternatives of one type yet")
            return dict(found)
        return {self.schema["type"]: self}


def find_misfits(writer: Side, reader: Side, path: str = "") -> Iterator[Misfit]:
    """What `reader` can't read of what `writer` may write. A member that only the writer knows is ignored."""
    written, read = writer.variants(), reader.variants()
    for kind, variant in written.items():
        known = read.get(kind) or (read.get("number") if kind == "integer" else None)
        if known is None:
            yield Misfit(path, "type", f"may be {'null' if kind == 'null' else f'of type {kind}'}")
            continue
        yield from _compare_values(variant.schema, known.schema, path)
        if kind == "array":
            items = variant.at(variant.schema["items"]), known.at(known.schema["items"])
            yield from find_misfits(*items, path=f"{path}[]")
        if kind == "object":
            yield from _compare_members(variant, known, path)


def find_gone(before: Side, after: Side, path: str = "") -> Iterator[Misfit]:
    """Members that `before` names and `after` does not."""
    was, now = before.variants(), after.variants()
    for kind in was.keys() & now.keys():
        if kind == "array":
            items = was[kind].at(was[kind].schema["items"]), now[kind].at(now[kind].schema["items"])
            yield from find_gone(*items, path=f"{path}[]")
        members = now[kind].schema.get("properties", {})
        for name, member in was[kind].schema.get("properties", {}).items():
            if name not in members:
                yield Misfit(_join(path, name), "gone", "is gone")
            else:
                yield from find_gone(was[kind].at(member), now[kind].at(members[name]), _join(path, name))


def _compare_members(writer: Side, reader: Side, path: str) -> Iterator[Misfit]:
    written, read = writer.schema.get("properties", {}), reader.schema.get("properties", {})
    always = set(writer.schema.get("required", ()))
    for name in reader.schema.get("required", ()):
        if name not in always and name in written:
            yield Misfit(_join(path, name), "missing", "may be missing")
        elif name not in always:
            yield Misfit(_join(path, name), "missing", NEVER_THERE)
    if reader.schema.get("additionalProperties", True) is False is not writer.schema.get("additionalProperties", True):
        yield Misfit(path, "closed", "may have members that are not described")
    for name in written.keys() & read.keys():
        yield from find_misfits(writer.at(written[name]), reader.at(read[name]), _join(path, name))


def _compare_values(written: Schema, read: Schema, path: str) -> Iterator[Misfit]:
    may, reads = _values(written), _values(read)
    if reads is not None:
        news = ["any value"] if may is None else [json.dumps(each) for each in may if each not in reads]
        if news:
            yield Misfit(path, "value", f"may be {', '.join(news)}")
    for keyword, words in (_UPPER | _LOWER).items():
        bound, other = read.get(keyword), written.get(keyword)
        if bound is not None and (other is None or (other > bound if keyword in _UPPER else other < bound)):
            yield Misfit(path, "rule", f"may be {words.format(bound)}")
    for keyword in _RULES:
        if keyword in read and read[keyword] != written.get(keyword):
            yield Misfit(path, "rule", f"may not have the {keyword} {read[keyword]}")


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
