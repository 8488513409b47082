"""The pytest plugin `orgs`, which comes with `org-events[pytest]`. It does nothing until a test asks for something.

Fixtures: `orgs_golden` (the golden messages of the installed release), `orgs_event` and `orgs_state` (a test with one
of them runs once for each golden record of the topic, of every release), `fake_orgs` (a `FakeOrganizationClient`).

`pytest --orgs-usage` writes the usage manifest of the program that the setting `orgs_program` names.

A module of its own, and imports where they are needed: pytest loads it for every run of whoever has the package
installed, which must not cost the import of the contract and its models.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from org_events.testing import Message
    from org_events.testing.publisher import FakeOrganizationClient

_PROGRAM: Final = "orgs_program"
_FILE: Final = "orgs_usage"
_FILE_DEFAULT: Final = "orgs-usage.json"
_EACH: Final = {"orgs_event": "events", "orgs_state": "state"}
"""Fixtures, and the topics whose records they are."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The setting and the option."""
    parser.addini(_PROGRAM, "the name of the program in its usage manifest")
    parser.getgroup("orgs").addoption(
        "--orgs-usage",
        dest=_FILE,
        nargs="?",
        const=_FILE_DEFAULT,
        metavar="FILE",
        help=f"write what the program uses of the organizations' contract to FILE ({_FILE_DEFAULT})",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record.

    Raises:
        pytest.UsageError: The program has no name, or its tests are shared among processes, which would each know
            a part.
    """
    if config.getoption(_FILE) is None:
        return
    program = str(config.getini(_PROGRAM))
    if not program:
        raise pytest.UsageError(f"--orgs-usage: name your program by the setting {_PROGRAM}")
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("--orgs-usage: run the tests in one process (-n 0)")
    from org_events.testing import usage

    usage.record(program)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Write the manifest, if all tests passed: what fails may not have read all that it does."""
    file = config.getoption(_FILE)
    if file is None:
        return
    from org_events.testing import usage

    recorded = usage.recorded()
    usage.record(None)
    if recorded is None or exitstatus != pytest.ExitCode.OK:
        terminalreporter.write_line(f"{file} is not written: not all tests passed", red=True)
        return
    Path(file).write_text(recorded.to_text(), encoding="utf-8")
    terminalreporter.write_line(f"{file} is written")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for each record of a topic."""
    for name in _EACH.keys() & {*metafunc.fixturenames}:
        records = _list_records(_EACH[name])
        metafunc.parametrize(name, records.values(), ids=records.keys())


@pytest.fixture
def orgs_golden() -> tuple[Message, ...]:
    """Every golden message of the installed release, in its order."""
    from org_events.testing.golden import golden_messages

    return golden_messages()


@pytest.fixture
def fake_orgs() -> FakeOrganizationClient:
    """A stand-in for `OrganizationClient`."""
    from org_events.testing.publisher import FakeOrganizationClient

    return FakeOrganizationClient()


def _list_records(topic: str) -> dict[str, Message]:
    """Each different record that a release wrote to the topic, by a name for its test."""
    from org_events.testing.golden import golden_messages, on_topic, releases
    from org_events.topics import Topics

    found: dict[Message, str] = {}
    for release in releases():
        for number, message in enumerate(on_topic(getattr(Topics(), topic), golden_messages(release))):
            found.setdefault(message, f"{release}-{message.message}-{number}")
    return {name: message for message, name in found.items()}
