"""A supervised program ends with whoever wanted it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from org_local.server import Child, Program

pytestmark = pytest.mark.integration

DEAF = "trap '' TERM INT; echo ready; while :; do sleep 60; done"
GOOD = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 60 & wait; done"


def program(tmp_path: Path, script: str, *, drop: tuple[tuple[str, float], ...] = ()) -> Program:
    return Program(
        name="a script",
        argv=["/bin/sh", "-c", script],
        log=tmp_path / "script.log",
        env={"PATH": os.defpath},
        stop=(("SIGTERM", 0.5),),
        drop=drop,
    )


def started(tmp_path: Path, script: str) -> Child:
    """The script, once it has said that it's ready (its signal handlers are set then)."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    child = Child(program(tmp_path, script.replace("echo ready", f"echo ready > {ready}")))
    assert ready.read_text() == "ready\n"
    return child


def assert_gone(*pids: int) -> None:
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=15)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_an_orderly_stop_lets_the_program_finish(tmp_path: Path) -> None:
    child = started(tmp_path, GOOD)

    child.end(orderly=True)

    assert_gone(child.pid)
    assert "bye" in (tmp_path / "script.log").read_text()


@pytest.mark.parametrize("orderly", [True, False])
def test_a_program_that_ignores_signals_is_killed(tmp_path: Path, orderly: bool) -> None:
    child = started(tmp_path, DEAF)

    child.end(orderly=orderly)

    assert_gone(child.pid)


def test_a_paused_program_is_stopped(tmp_path: Path) -> None:
    child = started(tmp_path, GOOD)
    os.kill(child.pid, signal.SIGSTOP)

    child.end(orderly=True)

    assert_gone(child.pid)
    assert "bye" in (tmp_path / "script.log").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_program_dies_with_its_killed_supervisor(tmp_path: Path) -> None:
    child = started(tmp_path, DEAF)
    supervisor = psutil.Process(child.pid).ppid()

    os.kill(supervisor, signal.SIGKILL)

    assert_gone(child.pid)
    child.end(orderly=False)


def test_a_forked_child_that_holds_the_pipe_does_not_keep_the_program_alive(tmp_path: Path) -> None:
    """`multiprocessing` forks copies of the pipe; its end alone doesn't tell that the parent is gone."""
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_supervisor import GOOD, started
child = started(Path({str(tmp_path)!r}), GOOD)
fork = os.fork()
if fork == 0:
    signal.pause()
print(child.pid, fork, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, fork = map(int, parent.stdout.readline().split())
        try:
            assert parent.wait(timeout=15) == -signal.SIGKILL
            assert_gone(pid)
        finally:
            os.kill(fork, signal.SIGKILL)


def test_a_program_that_cannot_be_run_is_reported(tmp_path: Path) -> None:
    missing = Program(name="nothing", argv=["/no/such/program"], log=tmp_path / "log", env={}, stop=())

    with pytest.raises(Exception, match=r"nothing cannot be run: .*No such file"):
        Child(missing)
