"""What every command shares: settings, consoles, exit codes, and what is said when something is amiss.

`orgs --help` must answer at once, so modules of the command line import nothing heavy at their top: settings, clients
and tables are imported where they are used.
"""

import asyncio
import gc
import getpass
import json
import logging
import os
import signal
import sys
import threading
from codecs import lookup
from collections.abc import Coroutine, Sequence
from datetime import datetime
from functools import cache
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from org_service.kafka.topics import TopicPlan
    from org_service.settings import Settings

T = TypeVar("T")

FAILED: Final = 1
"""It was decided, and the answer is no; or an operator must act first."""
USAGE: Final = 2
"""The command or a setting is written wrongly; nothing was tried."""
UNKNOWN: Final = 3
"""A server is away or no answer came in time. Trying again is safe."""

INTERRUPTED: Final = 130
"""By ^C."""
CLOSED: Final = 141
"""Whoever read the output has gone: 128 + SIGPIPE, as of a program that the signal ends."""

STACK_ENV: Final = Path(".local/stack.env")
"""Where `orgs up` says where its servers are, for everybody who works in the same folder."""
UP_SOCKET: Final = STACK_ENV.with_name("up.sock")
"""Where it answers those who would stop and start its roles."""
NO_SUCH_SETTING: Final = "unknown setting; docs/settings.md lists all"
INTEGER_MAX: Final = 2**63 - 1
"""Of ids and positions in the database."""
FILE_COLUMNS: Final = 250
"""Of a table that isn't shown on a terminal: enough that no cell is folded."""


class OutputClosed(Exception):
    """Whoever read standard output or standard error has gone."""


@cache
def out() -> "Console":
    """Standard output, for results."""
    return _console(width=None if sys.stdout.isatty() else FILE_COLUMNS)


@cache
def err() -> "Console":
    """Standard error, for everything that isn't a result."""
    return _console(stderr=True)


def _console(**options: Any) -> "Console":
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise OutputClosed

    # What is printed has names of organizations in it: `[/x]` is no markup. Styles come as `Text`.
    return Output(highlight=False, markup=False, soft_wrap=True, **options)


def accept_any_encoding() -> None:
    """Write what the locale's encoding can't say as an escape, rather than fail in the middle of an answer."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def let_go_of_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter doesn't fail at it as it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def write_json(document: object) -> None:
    """One line of JSON on standard output; a moment becomes RFC 3339 in UTC, what else JSON doesn't know text."""
    any_character = lookup(sys.stdout.encoding).name == "utf-8"
    write_text(json.dumps(document, ensure_ascii=not any_character, default=_as_text))


def _as_text(value: object) -> str:
    from org_service.wire.results import format_rfc3339

    return format_rfc3339(value).decode() if isinstance(value, datetime) else str(value)


def write_text(line: str) -> None:
    """One line of text on standard output, as it is."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error


def say(message: str) -> None:
    """One line on standard error."""
    err().print(message)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """End with one clear line on standard error.

    Raises:
        typer.Exit: always.
    """
    from rich.text import Text

    err().print(Text.assemble(("error: ", "bold red"), message))
    raise typer.Exit(code)


def fail_if_harmful(plans: "Sequence[TopicPlan]", so_far: str = "") -> None:
    """End if a topic would break the guarantees, and say what to do about it.

    Args:
        plans: Of all topics.
        so_far: What was done until now, to say first.
    """
    from org_service.kafka import topics

    if harmful := topics.list_harm(plans):
        fail("\n  ".join([f"{so_far}:", *harmful] if so_far else harmful))


def load_settings() -> "Settings":
    """The settings: the environment first, then `.local/stack.env` where it is of the same servers, then the defaults.

    Raises:
        pydantic.ValidationError: a value is wrong.
        typer.Exit: there is no such group of settings.
    """
    from org_service.settings import Settings

    groups = tuple(f"ORGS_{name.upper()}__" for name in Settings.model_fields)
    ours = sorted(name for name in os.environ if name.upper().startswith("ORGS_") and "__" in name)
    unknown = [f"\n  {name}: {NO_SUCH_SETTING}" for name in ours if not name.upper().startswith(groups)]
    unknown += _written_with_one_underscore()
    if unknown:
        fail("invalid setting:" + "".join(unknown), USAGE)
    return Settings(_env_file=STACK_ENV if stack_env() else None)  # pyright: ignore[reportCallIssue] - undeclared


def _written_with_one_underscore() -> list[str]:
    """Variables that would be settings with two underscores behind the group; pydantic-settings passes them over."""
    from pydantic import BaseModel

    from org_service.settings import Settings

    meant = {
        f"ORGS_{group}_{name}".upper(): f"ORGS_{group}__{name}".upper()
        for group, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields
    }
    return [
        f"\n  {name}: unknown setting; did you mean {meant[name.upper()]} (two underscores)?"
        for name, value in sorted(os.environ.items())
        # Kubernetes sets ORGS_WORKER_PORT=tcp://... for a service named orgs-worker.
        if name.upper() in meant and not value.startswith("tcp://")
    ]


def stack_env() -> dict[str, str]:
    """What `.local/stack.env` says, by names in upper case; nothing where the environment names other servers.

    All of it or none: its issuer and its trust in publishers are good for the servers that it names, and for no others.
    """
    if not STACK_ENV.is_file():
        return {}
    from dotenv import dotenv_values

    said = {name.upper(): value or "" for name, value in dotenv_values(STACK_ENV).items()}
    named = _servers_named()
    other = sorted(name for name, server in named.items() if server != said.get(name))
    if not other:
        return said
    _warn_of_other_servers(", ".join(other))
    return {}


def _servers_named() -> dict[str, str]:
    """The servers that the environment names, however it writes them."""
    from org_service.settings import Settings

    settings = Settings(_env_file=None)  # pyright: ignore[reportCallIssue] - undeclared
    named: dict[str, str] = {}
    if "bootstrap_servers" in settings.kafka.model_fields_set:
        named["ORGS_KAFKA__BOOTSTRAP_SERVERS"] = settings.kafka.bootstrap_servers
    if "url" in settings.database.model_fields_set:
        named["ORGS_DATABASE__URL"] = settings.database.url.get_secret_value()
    if "api_url" in settings.model_fields_set:
        named["ORGS_API_URL"] = settings.api_url
    return named


@cache
def _warn_of_other_servers(names: str) -> None:
    say(f"note: {STACK_ENV} is not used: it belongs to other servers than the environment names ({names})")


def quiet_settings() -> "Settings":
    """The settings for a command that a person looks at: libraries' logs would drown its answer."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    return load_settings()


def login() -> str:
    """The name of whoever sits here, as the actor of what they do; in a container the user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return f"uid-{os.getuid()}"


def sender(settings: "Settings", actor: str | None) -> dict[str, str]:
    """Who sends a command: the actor that was named; else the user of `ORGS_TOKEN`; else whoever sits here.

    Raises:
        typer.BadParameter: The actor is empty, as a variable that isn't set is: it must not mean another one.
    """
    if actor is not None and not actor.strip():
        raise typer.BadParameter("--actor is empty")
    token = settings.token.get_secret_value()
    return {"token": token} if token and not actor else {"actor": actor or login()}


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's asynchronous part to its end; ^C cancels it and ends with `KeyboardInterrupt`."""
    return asyncio.run(_interruptible(main))


async def _interruptible(main: Coroutine[Any, Any, T]) -> T:
    """Let the second ^C end the process as a kill would.

    asyncio raises `KeyboardInterrupt` then, wherever the program is: between two greenlets it takes the interpreter
    with it (seen: SIGSEGV), and elsewhere it is a traceback.
    """
    cancel: Any = signal.getsignal(signal.SIGINT)  # asyncio's: it cancels this task
    interrupts = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts > 1:
            os.write(2, b"ended at once, as by a kill\n")
            os._exit(INTERRUPTED)
        cancel(number, frame)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not callable(cancel) or cancel is signal.default_int_handler:
        return await main
    signal.signal(signal.SIGINT, interrupt)
    try:
        return await main
    finally:
        signal.signal(signal.SIGINT, cancel)


def run_fast(main: Coroutine[Any, Any, T]) -> T:
    """As `run`, on uvloop: worth its import to a command that works for minutes.

    What such a command holds lives for a while and forms no cycles: the garbage is looked for as rarely as in a worker.
    """
    import uvloop

    from org_service.runtime import GC_OF_BATCHES

    gc.freeze()
    gc.set_threshold(*GC_OF_BATCHES)
    return uvloop.run(_interruptible(main))


def make_progress_bar(*counts: "ProgressColumn") -> "Progress":
    """A bar on the terminal's standard error, with a task's field `rate`; nothing where there is no terminal.

    Args:
        counts: Columns behind the percentage.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        *counts,
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err(),
        transient=True,
        disable=not err().is_terminal,
    )
