"""Whether a JSON Schema may follow another one within the same schema version: only additions that break nobody.

Knows what our generated schemas use: `$ref` into `$defs`, `anyOf`, `type`, `properties`, `required`, `items` and
constraints by value. Any change of a constraint counts as a breach, loosened ones too: those deserve a thought.
"""

from collections.abc import Iterator
from typing import Any, Literal

Schema = dict[str, Any]
Direction = Literal["accepted", "published"]
"""accepted: others write it, we read it (commands). published: we write it, others read it, old messages included."""

CONSTRAINTS = (
    "const",
    "enum",
    "format",
    "maximum",
    "maxLength",
    "minimum",
    "minLength",
    "pattern",
    "additionalProperties",
)


def breaches(old: Schema, new: Schema, direction: Direction) -> list[str]:
    """What `new` breaks for programs that know only `old`; empty when it may follow."""
    return list(_compare("$", old, new, (old, new), direction))


def _compare(path: str, old: Schema, new: Schema, roots: tuple[Schema, Schema], direction: Direction) -> Iterator[str]:
    before, after = _variants(old, roots[0]), _variants(new, roots[1])
    gone, come = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    if gone:
        yield f"{path}: can no longer be {', '.join(gone)}"
    if come and direction == "published":
        yield f"{path}: can now be {', '.join(come)}"
    for kind in sorted(before.keys() & after.keys()):
        was, now = before[kind], after[kind]
        for constraint in CONSTRAINTS:
            if was.get(constraint) != now.get(constraint):
                yield f"{path}: {constraint} was {was.get(constraint)}, is {now.get(constraint)}"
        if kind == "array":
            yield from _compare(f"{path}[]", was["items"], now["items"], roots, direction)
        if kind == "object":
            yield from _compare_members(path, was, now, roots, direction)


def _compare_members(
    path: str, old: Schema, new: Schema, roots: tuple[Schema, Schema], direction: Direction
) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before.keys() - after.keys():
        yield f"{path}.{name}: is gone"
    was_required, is_required = set(old.get("required", [])), set(new.get("required", []))
    for name in sorted(is_required - was_required):
        yield f"{path}.{name}: is now required"
    if direction == "published":
        for name in sorted(was_required - is_required):
            yield f"{path}.{name}: may now be missing"
    for name in before.keys() & after.keys():
        yield from _compare(f"{path}.{name}", before[name], after[name], roots, direction)


def _variants(schema: Schema, root: Schema) -> dict[str, Schema]:
    """The alternatives of a schema by their type."""
    if "$ref" in schema:
        return _variants(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    if "anyOf" in schema:
        return {kind: found for part in schema["anyOf"] for kind, found in _variants(part, root).items()}
    return {schema["type"]: schema}
