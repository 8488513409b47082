"""What a program reads of the contract, and which commands it sends: its usage manifest, `orgs-usage.json`.

A team records it while its tests run (`pytest --orgs-usage`), and sends it to the service's repository. There the gate
names the team when a change of the contract would break it.

    {"program": "search-index", "contract": "0.1.0",
     "reads": {"org.updated": {"body": ["after.name", "version"], "headers": []}},
     "sends": {"org.update": ["domain", "org_id"]}}
"""

import json
from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, TypedDict

WHOLE: Final = "*"
"""The path of a program that takes a body, or a part of it, as a whole: each change of it may matter."""


class Read(TypedDict):
    """What is read of one type of message: paths in its body (`after.name`), names of headers."""

    body: list[str]
    headers: list[str]


class Manifest(TypedDict):
    """A usage manifest, as in its file."""

    program: str
    contract: str
    reads: dict[str, Read]
    sends: dict[str, list[str]]


class Usage:
    """Notes what a program uses while its tests run.

    Args:
        program: Its name, as the service's operators know it.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._body: defaultdict[str, set[str]] = defaultdict(set)
        self._headers: defaultdict[str, set[str]] = defaultdict(set)
        self._sent: defaultdict[str, set[str]] = defaultdict(set)
        self._noting = False

    @contextmanager
    def recording(self) -> Generator[None]:
        """While a handler runs: what a test reads afterwards of the same views is not the program's doing."""
        self._noting = True
        try:
            yield
        finally:
            self._noting = False

    def note_message(self, message: str) -> None:
        """The program was given such a message."""
        self._body[message].update(())

    def note_body(self, message: str, path: str) -> None:
        """It read a member of its body."""
        if self._noting:
            self._body[message].add(path)

    def note_header(self, message: str, header: str) -> None:
        """It read a header of it."""
        if self._noting:
            self._headers[message].add(header)

    def note_sent(self, command: str, members: Iterable[str]) -> None:
        """It sent a command with these members."""
        self._sent[command].update(members)

    def manifest(self) -> Manifest:
        """What was noted, in a stable order."""
        return {
            "program": self._program,
            "contract": version("org-events"),
            "reads": {
                message: {
                    "body": _deepest(self._body[message]),
                    "headers": sorted(self._headers[message]),
                }
                for message in sorted({*self._body, *self._headers})
            },
            "sends": {command: sorted(members) for command, members in sorted(self._sent.items())},
        }

    def to_text(self) -> str:
        """The manifest as its file."""
        return json.dumps(self.manifest(), indent=2) + "\n"


_session: Usage | None = None


def recorded() -> Usage | None:
    """What this session of tests records; None as a rule."""
    return _session


def record(program: str | None) -> Usage | None:
    """Begin to record what a program uses, or, with None, end it."""
    global _session  # noqa: PLW0603 - a session of tests has one
    _session = None if program is None else Usage(program)
    return _session


def touches(paths: Iterable[str], changed: str) -> list[str]:
    """Those of the paths that a change of the member `changed` may matter to: it, what is in it, and what it is in."""
    return [path for path in paths if path == WHOLE or _contains(changed, path) or _contains(path, changed)]


def read_manifest(text: str) -> Manifest:
    """A manifest from its file.

    Raises:
        ValueError: It is none.
    """
    found: Mapping[str, Any] = json.loads(text)
    if not isinstance(found, dict) or {*found} != {*Manifest.__annotations__}:
        raise ValueError("a usage manifest has the members program, contract, reads and sends")
    return Manifest(**found)  # pyright: ignore[reportArgumentType] - as it was written, by `Usage`


def _deepest(paths: set[str]) -> list[str]:
    """Without those that only lead to others: to read `after.name` one has to read `after`."""
    return sorted(path for path in paths if not any(other.startswith((f"{path}.", f"{path}[")) for other in paths))


def _contains(outer: str, inner: str) -> bool:
    outer, inner = outer.removesuffix(f".{WHOLE}"), inner.removesuffix(f".{WHOLE}")
    return not outer or inner == outer or inner.startswith((f"{outer}.", f"{outer}["))
