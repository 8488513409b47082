"""Tests reach the code through its public face and named probes, so that its inside may change without them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("org_events", "org_service")
OF_NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}

PRIVATE = {
    "fuzz/targets.py": "each half of a decoder alone: no random bytes would get past the check before it",
    "integration/client/test_brokers.py": "aiokafka's inside, on which our client stands",
    "integration/client/test_consumer.py": "aiokafka's inside, on which our consumer stands",
    "integration/client/test_outages.py": "aiokafka's: whether a batch waits to be sent again is shown nowhere",
    "integration/store/test_engine.py": "asyncpg's: half a message, and an answer that isn't read",
    "integration/store/test_leader.py": "what a pooler does to a session can be done in that session alone",
    "unit/apply/test_authenticator.py": "a last read of the keys that was long ago, by the real clock",
    "unit/events/test_outcomes.py": "an outcome and a caller that gives up in one turn of the loop; what is kept",
    "unit/relay/test_chunks.py": "two billion records of a partition would have to be sent",
    "unit/worker/test_heartbeats.py": "a table of states; servers would have to be brought into each of them",
}
"""Files that name what is private in the code (or in a library by the same name), and why."""
PATCHED = {
    "integration/cli/test_send.py": "^C between command and outcome",
    "integration/client/test_consumer.py": "answers that a broker which is well does not give",
    "integration/client/test_outages.py": "a broker that falls silent just after it let somebody in",
    "unit/auth/conftest.py": "the clock",
    "unit/auth/test_tokens.py": "libraries that must not be called",
    "unit/cli/test_config.py": "the width of the terminal",
    "unit/cli/test_up.py": "what is said, without a terminal",
    "unit/events/test_sick.py": "the clock",
    "unit/waiting/test_patience.py": "the clock, and chance",
}
"""Files that replace a function, class or module of the code, and why; numbers in capitals any test may change."""


def sources(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in OF_NAMED_TUPLES


def named(tree: ast.Module) -> set[str]:
    """Private names that a module defines, for itself or for its objects."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), ctx=ast.Store()):
                found.add(node.attr)
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
            case _:
                pass
    return set(filter(is_private, found))


OURS = {name for _, tree in sources("events/org_events", "service/org_service") for name in named(tree)}


def reached(tree: ast.Module) -> set[str]:
    """Private names of the code that a test uses, not counting those that it defines itself."""
    theirs, found = named(tree), set[str]()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute():
                found.add(node.attr)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PRODUCT:
                found |= {each.name for each in node.names}
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr"), args=[_, ast.Constant(value=str(name)), *_]):
                found.add(name)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[ast.Constant(value=str(path)), *_]):
                found.add(path.rpartition(".")[2])
            case _:
                pass
    return {name for name in found - theirs if is_private(name) and name in OURS}


def replaced(tree: ast.Module) -> set[str]:
    """Functions, classes and modules in the code that a test puts something else in the place of."""
    ours = {
        each.asname or each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PRODUCT
        for each in node.names
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[of, ast.Constant(value=str(name)), *_]):
                if ast.unparse(of).split(".")[0] in ours and not name.isupper():
                    found.add(name)
            case ast.Call(func=ast.Attribute(attr="setattr"), args=[ast.Constant(value=str(path)), *_]):
                if path.split(".")[0] in PRODUCT and not path.rpartition(".")[2].isupper():
                    found.add(path)
            case _:
                pass
    return found


def test_what_is_private_is_used_in_no_test_but_a_few() -> None:
    found = {path.removeprefix("tests/"): names for path, tree in sources("tests") if (names := reached(tree))}
    assert found.keys() == PRIVATE.keys(), found


def test_what_the_code_does_is_replaced_in_no_test_but_a_few() -> None:
    found = {path.removeprefix("tests/"): names for path, tree in sources("tests") if (names := replaced(tree))}
    assert found.keys() == PATCHED.keys(), found
