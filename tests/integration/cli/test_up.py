"""The whole stack in one terminal, and the demo, as a person runs them."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[3]


def environment() -> dict[str, str]:
    """Nothing that leads to other servers than their own."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ORGS_")}
    return variables | {"ORGS_WORKER__PORT": "0", "ORGS_RELAY__PORT": "0"}


async def start(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder,
        env=environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def orgs(folder: Path, *arguments: str) -> tuple[int | None, str]:
    process = await start(folder, "-m", "org_service.cli", *arguments)
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode() + stderr.decode()


async def line_with(stream: asyncio.StreamReader | None, words: str) -> str:
    assert stream is not None
    seen: list[str] = []
    while line := (await stream.readline()).decode():
        seen.append(line)
        if words in line:
            return line
    raise AssertionError(f"{words!r} never came: {seen}")


@pytest.mark.timeout(180)
async def test_up_brings_everything_other_terminals_find_it_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    up = await start(tmp_path, "-m", "org_service.cli", "up")
    try:
        await line_with(up.stderr, "ready: try")
        stack_env = dict(line.split("=", 1) for line in (tmp_path / ".local/stack.env").read_text().splitlines())
        assert stack_env.keys() == {"ORGS_KAFKA__BOOTSTRAP_SERVERS", "ORGS_DATABASE__URL"}
        code, said = await orgs(tmp_path, "send", "create", "--name", "Acme", "--timeout", "60")
        assert (code, said.splitlines()[0]) == (0, "applied 200  v1  Acme")
        assert "version  1" in (await orgs(tmp_path, "show", "acme"))[1]
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) >= 4  # Kafka, Postgres and their supervisors
        tail = await start(tmp_path, "-m", "org_service.cli", "tail", "events", "--from-start")
        await line_with(tail.stdout, "created     Acme")
        up.send_signal(signal.SIGINT)
        _, said_last = await up.communicate()
    finally:
        if up.returncode is None:
            up.kill()
    assert up.returncode == 0
    assert said_last.decode().splitlines()[-1] == "stopping Kafka and Postgres"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert not (tmp_path / ".local/stack.env").exists()
    tail.send_signal(signal.SIGINT)  # it still waits for Kafka to come back
    assert await tail.communicate() == (b"", b"")
    assert tail.returncode == 0
    code, said = await orgs(tmp_path, "show", "acme")
    assert code == 3
    assert "orgs up" in said


@pytest.mark.timeout(180)
async def test_the_demo_ends_with_accounts_that_balance(tmp_path: Path) -> None:
    demo = await start(tmp_path, str(REPOSITORY / "deploy/demo/demo.py"))
    stdout, stderr = await demo.communicate()
    told = stdout.decode()
    assert demo.returncode == 0, told + stderr.decode()
    last = told.splitlines()[-1]
    balance = re.fullmatch(r"demo: (\d+) commands, (\d+) outcomes, (\d+) events, (\d+) parked: accounts balance", last)
    assert balance is not None, last
    commands, outcomes, events, parked = map(int, balance.groups())
    assert commands == outcomes > 1250
    assert 1000 < events < outcomes
    assert parked == 1
    assert told.count("accounts balance") == 1
    assert "✗" not in told
    for special in ("swap names", "rejected  409  Another organization has this name", "rejected  400", "unreadable"):
        assert special in told
    assert len(told.splitlines()) < 150
