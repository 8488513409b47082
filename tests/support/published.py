"""What publishers wrote down: one JSON line a command, after the broker answered (or did not)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import orjson


@dataclass(frozen=True, slots=True)
class Published:
    """One command as its publisher remembers it.

    `partition` and `offset` are null where no acknowledgement came: the record may be in the log, or not.
    """

    command_id: str | None
    """null where the publisher sent bytes that can't be read as a command."""
    org_id: str
    type: str
    sequence: int
    """1, 2, 3 … per organization, in the order of publishing."""
    body: str
    """The value's bytes, each as the character of the same number (Latin-1), so that any bytes can be kept."""
    partition: int | None
    offset: int | None

    @property
    def acknowledged(self) -> bool:
        """Whether the broker said that it has the record."""
        return self.offset is not None

    def line(self) -> bytes:
        """This entry as a JSON line."""
        return orjson.dumps(asdict(self)) + b"\n"

    @classmethod
    def of(cls, line: bytes) -> Self:
        """Read a line back."""
        return cls(**orjson.loads(line))


def load(path: Path) -> list[Published]:
    """Every entry of a file."""
    with path.open("rb") as lines:
        return [Published.of(line) for line in lines]
