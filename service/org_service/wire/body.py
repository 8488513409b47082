"""The JSON body of a command before its fields are looked at: which request it is, and how deep it nests. Pure."""

from hashlib import blake2b
from typing import Any, Final, cast

from org_events.commands import exact_integer

_DIGEST_BYTES: Final = 16


def digest_request(command_type: bytes, canonical: bytes) -> bytes:
    """The digest that tells a repeated command from another one under the same id.

    Args:
        command_type: The `ce_type`.
        canonical: The JSON body with sorted keys and no white space; as it was sent where it can't be parsed.
    """
    return blake2b(command_type + b"\n" + canonical, digest_size=_DIGEST_BYTES).digest()


def write_version_plainly(body: dict[str, Any]) -> bool:
    """Write an `expected_version` of 7.0 as 7, which it is, so that it is the same request; whether it was changed."""
    version = body.get("expected_version")
    if type(version) is not float:
        return False
    body["expected_version"] = exact_integer(version)
    return True


def measure_depth(body: Any) -> int:
    """How deep parsed JSON nests: the number of objects and arrays around its innermost value. Doesn't recurse."""
    levels, level = 0, [body]
    while level:
        levels += 1
        level = [child for node in level for child in _children(node)]
    return levels - 1


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(cast("dict[str, Any]", node).values())
    return cast("list[Any]", node) if isinstance(node, list) else []
