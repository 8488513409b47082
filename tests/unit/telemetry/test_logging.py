"""What is written to the log, and above all what isn't: no payload gets there by way of an exception."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from org_service.settings import LogSettings
from org_service.telemetry.logs import get_logger, set_up_logging

SECRET = "Karl Johans gate 1"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def fail(payload: str) -> None:
    """Have the payload in a local variable, in a message and in that of the cause: some tracebacks show any of them."""
    try:
        int(payload)
    except ValueError as cause:
        raise RuntimeError(payload) from cause


def log_a_failure_by(log: Any) -> None:
    try:
        fail(SECRET)
    except RuntimeError:
        log.exception("it failed")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("log", [get_logger("ours"), logging.getLogger("a library's")])
def test_an_exception_is_logged_by_type_and_place_and_its_message_never(
    capsys: pytest.CaptureFixture[str], log: Any, form: Any
) -> None:
    set_up_logging(LogSettings(format=form))
    log_a_failure_by(log)
    written = capsys.readouterr().err
    assert "it failed" in written
    assert "RuntimeError" in written
    assert "in log_a_failure_by" in written
    assert SECRET not in written


def test_an_exception_passed_as_an_argument_is_logged_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(LogSettings(format="json"))
    get_logger("ours").error("it failed", exc_info=KeyError(SECRET), records=3)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["records"], line["exception"]) == ("it failed", 3, "builtins.KeyError")
