"""One real server, seen from the process that wants it: start, outages, stop."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from org_local.errors import ServerFailedError
from org_local.supervisor import Spec

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_POLL_INTERVAL_S = 0.03
_LOG_TAIL_LINES = 25
START_TIMEOUT_S = 90.0
"""A cold start takes seconds; recovery after a crash or a busy CI machine takes longer."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to put under a supervisor. `stop` and `drop` are as in `supervisor.Spec`."""

    name: str
    argv: Sequence[str]
    log: Path
    env: dict[str, str]
    stop: tuple[tuple[str, float], ...]
    drop: tuple[tuple[str, float], ...] = ()
    user: tuple[int, int] | None = None
    remove: Path | None = None
    keep_fds: tuple[int, ...] = field(default=())


def run(program: Program, timeout_s: float) -> None:
    """Run a program that ends by itself.

    Raises:
        ServerFailedError: it failed or took too long; it isn't running then.
    """
    status = Child(program).wait(timeout_s)
    if status != 0:
        raise ServerFailedError(f"{program.name} failed with status {status}:\n{log_tail(program.log)}")


class Child:
    """A running program with its supervisor; both end when this process does."""

    def __init__(self, program: Program) -> None:
        self.program = program
        uid, gid = program.user or (None, None)
        spec: Spec = {
            "argv": list(program.argv),
            "env": program.env,
            "uid": uid,
            "gid": gid,
            "stop": list(program.stop),
            "drop": list(program.drop),
            "remove": str(program.remove) if program.remove else None,
        }
        with program.log.open("ab") as log:
            self._supervisor = subprocess.Popen(  # noqa: S603 (our own program and arguments)
                # -I -S: neither the user's environment nor site-packages, so it starts in ~20 ms
                [sys.executable, "-I", "-S", str(_SUPERVISOR), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                # The lock on the data folder and the claims on its ports last until the last supervisor ends.
                pass_fds=program.keep_fds,
            )
        answer = _pipe(self._supervisor.stdout).readline().decode().strip()
        if not answer.isdigit():
            self._supervisor.wait()
            self._close_pipes()
            raise ServerFailedError(f"{program.name} cannot be run: {answer.lstrip('!') or log_tail(program.log)}")
        self.pid = int(answer)

    @property
    def running(self) -> bool:
        """Whether the program still runs."""
        return self._supervisor.poll() is None

    def wait(self, timeout_s: float) -> int:
        """Wait for the program to end by itself and return its exit status."""
        try:
            status = self._supervisor.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.end(orderly=False)
            raise ServerFailedError(f"{self.program.name} did not finish in {timeout_s:.0f} s") from error
        self._close_pipes()
        return status

    def end(self, *, orderly: bool) -> None:
        """Stop the program, or drop it where its data don't matter, and wait until it's gone."""
        stages = self.program.stop if orderly else self.program.drop
        stdin = _pipe(self._supervisor.stdin)
        with contextlib.suppress(BrokenPipeError):  # it ended before us
            stdin.write(b"s" if orderly else b"d")
            stdin.flush()
        try:
            self._supervisor.wait(sum(seconds for _, seconds in stages) + 10)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._supervisor.kill()
            self._supervisor.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for stream in (self._supervisor.stdin, self._supervisor.stdout):
            with contextlib.suppress(BrokenPipeError):
                _pipe(stream).close()


def log_tail(log: Path) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _has_stopped(process: psutil.Process) -> bool:
    """Whether it has, or is gone."""
    try:
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_gone(processes: list[psutil.Process], timeout_s: float = 10.0) -> None:
    """Wait until none of the processes runs; one that only its parent hasn't noticed yet is gone.

    Raises:
        ServerFailedError: one still runs.
    """
    deadline = time.monotonic() + timeout_s
    for process in processes:
        while runs(process):
            if time.monotonic() > deadline:
                raise ServerFailedError(f"process {process.pid} does not end")
            time.sleep(_POLL_INTERVAL_S)


def runs(process: psutil.Process) -> bool:
    """Whether the process exists and isn't a dead one that its parent hasn't noticed yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Server:
    """A server of the local stack; made and started by `org_local.start`.

    The methods are blocking and meant for one caller at a time; from async code use `asyncio.to_thread`.

    `is_ready` must tell this server from another one on its port: that one answers while ours finds the port taken
    and is about to end.
    """

    def __init__(self, program: Program, *, is_ready: Callable[[], bool], port: int) -> None:
        self.program = program
        self.port = port
        self._is_ready = is_ready
        self._child: Child | None = None
        self._stop_wanted = False
        self._paused: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        """The server's main process."""
        if self._child is None:
            raise ServerFailedError(f"{self.program.name} is not running")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether its main process exists (paused counts)."""
        return self._child is not None and self._child.running

    def check(self) -> None:
        """See that the server runs, unless it was stopped or killed here.

        Raises:
            ServerFailedError: it ended by itself; the message carries the end of its log.
        """
        child = self._child  # another thread may be about to stop it
        if child is not None and not child.running:
            raise ServerFailedError(f"{self.program.name} ended; {self._last_words()}")

    def pids(self) -> list[int]:
        """Every process of the server, the main one first."""
        return [process.pid for process in self._processes()]

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start the server, if it doesn't run, and wait until it answers its own protocol.

        Raises:
            ServerFailedError: it ended or didn't answer in time; it isn't running then.
        """
        self._stop_wanted = False
        if not self.running:
            self._prepare()
            self._child = Child(self.program)
        deadline = time.monotonic() + timeout_s
        while not self._is_ready():
            if self._stop_wanted:
                self.stop()
                raise ServerFailedError(f"{self.program.name} was stopped while it started")
            self.check()
            if time.monotonic() > deadline:
                said = self._last_words()
                self.stop()
                raise ServerFailedError(f"{self.program.name} did not respond within {timeout_s:.0f} s; {said}")
            time.sleep(_POLL_INTERVAL_S)

    def stop(self, *, orderly: bool = True) -> None:
        """Stop the server and wait until it's gone. Does nothing to a stopped one; ends a `start` in another thread.

        Args:
            orderly: let it write down what it holds; False is quicker, for data that will be thrown away.
        """
        self._stop_wanted = True
        child, self._child = self._child, None
        if child is not None:
            self.resume()
            child.end(orderly=orderly)

    def kill(self) -> None:
        """SIGKILL every process of the server, as a crash of its machine would, and wait until they're gone."""
        if self._child is not None:
            processes = self._processes()
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            wait_gone(processes)
            self._paused = []
            self._child.end(orderly=False)
            self._child = None

    def pause(self) -> None:
        """SIGSTOP every process: connections stay open and nothing answers, as with a machine that hangs.

        Returns once they have stopped: on a busy machine threads go on for a while behind the signal, and answer.
        """
        self._paused = self._processes()
        for process in self._paused:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        while not all(map(_has_stopped, self._paused)):
            time.sleep(_POLL_INTERVAL_S)

    def resume(self) -> None:
        """Undo `pause`. Does nothing to a server that isn't paused."""
        for process in reversed(self._paused):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._paused = []

    def restart(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Stop the server where it runs, start it again on the same port and data, wait until it answers."""
        self.stop()
        self.start(timeout_s)

    def _prepare(self) -> None:
        """Make what the server needs before it can start; a server without needs leaves this as it is."""

    def _last_words(self) -> str:
        return f"its log {self.program.log} says:\n{log_tail(self.program.log)}"

    def _processes(self) -> list[psutil.Process]:
        try:
            main = psutil.Process(self.pid)
            return [main, *main.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
