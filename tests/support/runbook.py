"""The runbook of docs/operating.md, taken from the page itself: its commands are run, and must print what it says.

In a block `console` a line that begins with `$` is a command, and what follows is what it prints: `…` stands for
anything, on a line of its own for any lines. Words in capitals (ORG, ID) stand for what an operator sees there.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Final

from tests.support.operating import Answer, Orgs

PAGE: Final = Path(__file__).parents[2] / "docs" / "operating.md"
_BLOCK: Final = re.compile(r"^ *```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_PLAN: Final = re.compile(r"\A([0-9a-f-]{36}) +planned ")
_RULE: Final = re.compile(r"[─ ]*")


@dataclass(frozen=True)
class Command:
    """A command of the page."""

    text: str
    prints: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """One symptom."""

    title: str
    text: str

    @property
    def slug(self) -> str:
        """Its title as a part of a test's name."""
        return re.sub(r"\W+", "_", self.title.lower()).strip("_")

    @property
    def prose(self) -> str:
        """All but the commands, on one line."""
        return " ".join(_BLOCK.sub("", self.text).split())

    def commands(self) -> Iterator[Command]:
        """Its commands, in order."""
        for block in _BLOCK.findall(self.text):
            for part in f"\n{dedent(block)}".split("\n$ ")[1:]:
                text, *prints = part.rstrip().split("\n")
                yield Command(text, tuple(prints))


def read() -> list[Entry]:
    """All entries."""
    section = PAGE.read_text(encoding="utf-8").partition("\n## Runbook\n")[2].partition("\n## ")[0]
    entries = (entry.partition("\n") for entry in section.split("\n### ")[1:])
    return [Entry(title, text) for title, _, text in entries]


@dataclass
class Following:
    """Somebody who follows an entry, command by command."""

    entry: Entry
    orgs: Orgs
    words: dict[str, str] = field(default_factory=dict)
    """What the page's placeholders stand for. ID is the plan that was printed last."""

    def __post_init__(self) -> None:
        """Begin at the first command."""
        self._left = list(self.entry.commands())

    async def __call__(self, text: str, code: int = 0, **variables: str) -> Answer:
        """Run the next command of the page, which must be this one, and compare what it prints."""
        assert self._left, f"the page has no command behind the last one, and not {text!r}"
        command = self._left.pop(0)
        assert command.text == text
        program, *arguments = shlex.split(self._filled(command.text))
        assert program == "orgs"
        answer = await self.orgs(*arguments, code=code, **variables)
        if planned := _PLAN.search(answer.output):
            self.words["ID"] = planned[1]
        _compare([self._filled(line) for line in command.prints], answer.output)
        return answer

    def sees(self, said: str) -> None:
        """What an operator sees (a check of /readyz, a line of a log) is what the page says that he sees."""
        quoted = re.findall(r"`([^`]+)`", self.entry.prose)
        seen = " ".join(said.split())
        assert any(_pattern(self._filled(each)).search(seen) for each in quoted), f"{said!r} is not in {quoted}"

    def see_finished(self) -> None:
        """No command of the entry was left out."""
        assert [command.text for command in self._left] == []

    def _filled(self, text: str) -> str:
        for word, meaning in self.words.items():
            text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", lambda _, meaning=meaning: meaning, text)
        return text


def _compare(expected: list[str], output: str) -> None:
    """Compare line by line, whatever the spaces between words and the rules of tables."""
    lines = [" ".join(line.split()) for line in output.splitlines() if not _RULE.fullmatch(line)]
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else f"{_pattern(' '.join(line.split())).pattern}\n" for line in expected
    )
    printed = "".join(f"{line}\n" for line in lines)
    assert re.fullmatch(pattern, printed), "\n".join(["the page says:", *expected, "it prints:", *lines])


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*?".join(map(re.escape, text.split("…"))))
