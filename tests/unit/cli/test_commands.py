"""What is true of every command, and of trouble, without a server."""

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import typer
from rich.table import Table
from typer.main import get_command
from typer.testing import CliRunner

from org_service.cli import shell
from org_service.cli.app import SECTIONS, app
from org_service.cli.filters import ids_in

runner = CliRunner()
HEAVY = ("sqlalchemy", "sqlmodel", "asyncpg", "aiokafka", "pydantic", "faststream", "structlog", "rich")


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    group = group or get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path: tuple[str, ...]) -> None:
    result = runner.invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    assert "Example: `" in result.output
    assert "orgs " + " ".join(path) in " ".join(result.output.split())


def test_the_help_has_each_command_once() -> None:
    named = [name for names in SECTIONS.values() for name in names]
    assert sorted(named) == sorted(get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]
    listed = [line.split()[0] for line in runner.invoke(app, ["--help"]).output.splitlines() if line[:2] == "  "]
    assert [name for name in listed if name in named] == named


def test_help_comes_before_anything_heavy_is_imported() -> None:
    program = (
        "import sys\n"
        "from org_service.cli.app import app\n"
        "try: app(['--help'], prog_name='orgs')\n"
        "except SystemExit: pass\n"
        f"print('heavy:', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.splitlines()[-1] == "heavy: []"


def run_apart(*arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    program = (sys.executable, "-m", "org_service.cli", *arguments)
    return subprocess.run(program, capture_output=True, check=False, timeout=60, env=os.environ | variables)


@pytest.mark.parametrize("arguments", [("config", "show"), ("config", "show", "--json")], ids=" ".join)
def test_a_closed_pipe_ends_a_command_silently(arguments: tuple[str, ...]) -> None:
    unread, output = os.pipe()
    os.close(unread)
    program = (sys.executable, "-m", "org_service.cli", *arguments)
    ended = subprocess.run(program, stdout=output, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(output)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_characters_the_terminal_cannot_encode_are_escaped() -> None:
    shown = run_apart("config", "show", PYTHONIOENCODING="latin-1", ORGS_AUTH__ISSUER="Ωmega")
    assert (shown.returncode, shown.stderr) == (0, b"")
    assert rb"\u03a9mega" in shown.stdout
    answer = run_apart("config", "show", "--json", PYTHONIOENCODING="latin-1", ORGS_AUTH__ISSUER="Ωmega")
    values = {setting["name"]: setting["value"] for setting in json.loads(answer.stdout)}
    assert values["ORGS_AUTH__ISSUER"] == "Ωmega"


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORGS_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("ORGS_DATABASE__URL", "postgresql://me:sesame@127.0.0.1:1/orgs")


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("arguments", "server"),
    [
        (["topics", "apply"], "Kafka"),
        (["tail", "events"], "Kafka"),
        (["send", "create", "--name", "Acme"], "Kafka"),
        (["journal", "advance"], "Kafka"),
        (["show", "Acme"], "Postgres"),
        (["history", "Acme"], "Postgres"),
        (["parked"], "Postgres"),
        (["migrate"], "Postgres"),
    ],
)
def test_an_unreachable_server_gives_one_clear_line_and_exit_code_3(arguments: list[str], server: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 3, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith(f"error: {server} does not respond at ")
    assert "127.0.0.1:1" in line
    assert f"ORGS_{'KAFKA__BOOTSTRAP_SERVERS' if server == 'Kafka' else 'DATABASE__URL'}: is that where it runs" in line
    assert "sesame" not in line
    assert result.stdout == ""


@pytest.mark.usefixtures("nowhere")
def test_a_killed_local_stack_is_suggested_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORGS_KAFKA__BOOTSTRAP_SERVERS")
    Path(".local").mkdir()
    Path(".local/stack.env").write_text("ORGS_KAFKA__BOOTSTRAP_SERVERS=127.0.0.1:1\n")
    result = runner.invoke(app, ["topics", "apply"])
    assert "is `orgs up` still running?" in result.stderr


@pytest.mark.usefixtures("nowhere")
def test_a_parameter_of_the_url_that_the_driver_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORGS_DATABASE__URL", "postgresql://me:sesame@127.0.0.1:1/orgs?sslmode=requier")
    result = runner.invoke(app, ["parked"])
    assert result.exit_code == 2, result.output
    assert "ORGS_DATABASE__URL: `sslmode` parameter must be one of" in result.stderr
    assert "sesame" not in result.output


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["send", "create", "--name", "A", "--domain", "nope", "--country", "XX"], "primary_address.country: "),
        (["send", "create", "--name", "A\tB"], "name: "),
        (
            ["send", "update", "0190c5f0-7d1c-7b7e-9d57-000000000001", "--domain", "a.example", "--clear", "domain"],
            "cannot be combined",
        ),
        (["send", "update", "Acme", "--name", "A"], "ORG"),
        (
            [
                "send",
                "delete",
                "0190c5f0-7d1c-7b7e-9d57-000000000001",
                "--if-domain",
                "a.example",
                "--if-null",
                "domain",
            ],
            "cannot be combined",
        ),
        (["import", "missing.jsonl"], "missing.jsonl"),
        (["tail", "everything"], "everything"),
        (["tail", "events", "--no-follow"], "--last N or --from-start"),
        (["history", "Acme", "--last", "99999999999999999999"], "--last"),
        (["send", "create", "--name", "Acme", "--actor", ""], "--actor is empty"),
        (["undo", "--by", "alice", "--reason", "caf\udce9"], "'caf\\udce9' is not UTF-8"),
        (["undo", "--by", "alice", "--rate-per-second-max", "inf"], "--rate-per-second-max"),
        (["parked", "show", "99999999999999999999"], "ID"),
        (["parked", "release", "99999999999999999999"], "ID"),
        (["parked", "edit", "1", "--body", "[" * 100_000], "is not JSON"),
        (["parked", "edit", "1", "--body", '{"name": NaN}'], "is not JSON"),
    ],
)
def test_invalid_arguments_are_not_sent_and_end_with_exit_code_2(arguments: list[str], said: str) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_of_ids_may_begin_with_a_mark_and_what_is_not_utf8_is_named_by_line(tmp_path: Path) -> None:
    path, org_id = tmp_path / "ids.txt", UUID("0190c5f0-7d1c-7b7e-9d57-000000000001")
    path.write_bytes(f"\ufeff{org_id}\r\n\r\n".encode())
    assert ids_in(path) == [org_id]
    path.write_bytes(f"{org_id}\ncaf\xe9\n".encode("latin-1"))
    with pytest.raises(typer.BadParameter, match=r"ids\.txt, line 2: .*caf.*xe9.* is not a UUID"):
        ids_in(path)


def test_what_is_printed_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name")
    table.add_row("Acme [/x] [red]AS")
    shell.err.cache_clear()
    shell.err().print(table)
    shell.say("[/x]")
    shell.err.cache_clear()
    said = capsys.readouterr().err
    assert "Acme [/x] [red]AS" in said
    assert "\n[/x]\n" in said


def test_a_second_interrupt_ends_a_command_at_once() -> None:
    program = (
        "import asyncio, os, signal\n"
        "from org_service.cli import shell\n"
        "async def hang():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    try: await asyncio.sleep(60)\n"
        "    finally: os.kill(os.getpid(), signal.SIGINT)\n"
        "shell.run(hang())"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (130, "ended at once, as by a kill\n")


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_acts_under_their_number(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def no_such_user() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", no_such_user)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert shell.login() == "uid-12345"


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("arguments", [["drill"], ["drill", "lost-tail"]], ids=" ".join)
def test_an_installation_without_the_local_stack_has_no_drills(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "org_local", None)
    result = runner.invoke(app, arguments)
    assert result.exit_code == 1
    assert "the local stack is not installed" in result.stderr
