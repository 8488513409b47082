"""Start one server and see that it dies with the process that wanted it.

Run as a script, one supervisor a server, on the standard library alone. The supervisor holds the read end of a
pipe whose write end only its parent has. Whatever ends the parent (a return, ^C, SIGTERM, SIGKILL, a failure half
way through a start), the pipe closes, and the supervisor stops the server: orderly first, hard in the end.

Declined: `PR_SET_PDEATHSIG` in the parent's own children. The kernel sends it when the *thread* that forked ends,
which kills a server started from a worker thread, and it exists on Linux only. It is used one level down, between
this single-threaded supervisor and its server, for the day somebody SIGKILLs the supervisor. Also rejected:
process groups and `atexit`, neither of which survives a SIGKILL of the parent. Cost: one small Python process (~9 MB)
a server.

The supervisor is a session leader of its own, so a ^C at the terminal reaches the parent alone, which can finish its
work while the servers are still there.

Protocol: the only argument is a `Spec` as JSON. Standard output gets one line, the server's pid (or `!` and an
error). On standard input `s` asks for an orderly stop, `d` for a quick one (the data are thrown away), and the end of
the pipe means that the parent is gone. Standard error is the server's log.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, TypedDict

_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 1 << 2
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522
_PARENT_CHECK_S = 1.0
"""How often to look whether the parent is alive: a forked child of the parent may hold the pipe open."""


class Spec(TypedDict):
    """What to run and how to end it.

    `stop` and `drop` are (signal name, seconds to wait) in order, for an orderly and a quick end; SIGKILL follows.
    `remove` is a folder to delete when the parent died without a word (a temporary stack).
    """

    argv: list[str]
    env: dict[str, str]
    uid: int | None
    gid: int | None
    stop: list[tuple[str, float]]
    drop: list[tuple[str, float]]
    remove: str | None


def _drop_root(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    """Become an ordinary user that may still enter folders only root can.

    Postgres refuses to run as root. A checkout below /root (mode 700) is out of reach for anybody else, so the new
    user keeps CAP_DAC_OVERRIDE as an ambient capability (capabilities(7)); that changes no folder's mode, which the
    alternative would. If the kernel rejects, the folder must be readable, and Postgres says so if it isn't.
    """
    linux = sys.platform == "linux"
    if linux:
        # Keeps capabilities across setuid, and access(2), by which initdb looks for its files, honours them then.
        libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if linux:
        mask = 1 << _CAP_DAC_OVERRIDE
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        sets = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)  # effective, permitted, inheritable; low, high
        libc.capset(ctypes.byref(header), ctypes.byref(sets))
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def _spawn(spec: Spec) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)
    supervisor = os.getpid()
    last_signal = getattr(signal, spec["drop"][-1][0]) if spec["drop"] else signal.SIGKILL

    def prepare() -> None:
        if spec["uid"] is not None and spec["gid"] is not None:
            _drop_root(libc, spec["uid"], spec["gid"])
        if sys.platform == "linux":  # after setuid, which clears it (prctl(2))
            libc.prctl(_PR_SET_PDEATHSIG, int(last_signal), 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(1)

    return subprocess.Popen(  # noqa: S603 (running what the parent asks for is its purpose)
        spec["argv"],
        env=spec["env"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        stderr=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=prepare,  # noqa: PLW1509 (this process has one thread)
    )


def _await_order(server: subprocess.Popen[bytes], parent: int, wake: int) -> bytes | None:
    """Wait for an order (`s`, `d`, or nothing for a parent that is gone), or None when the server ended by itself."""
    while True:
        readable, _, _ = select.select([0, wake], [], [], _PARENT_CHECK_S)
        if 0 in readable:
            return os.read(0, 1)
        if server.poll() is not None:
            return None
        if os.getppid() != parent:
            return b""
        if wake in readable and signal.SIGTERM in os.read(wake, 64):
            return b"s"


def _end(server: subprocess.Popen[bytes], stages: list[tuple[str, float]]) -> None:
    for name, seconds in stages:
        server.send_signal(getattr(signal, name))
        server.send_signal(signal.SIGCONT)  # a paused server must wake up to end
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if server.poll() is not None:
                return
            time.sleep(0.01)
    server.kill()
    server.wait()


def main() -> int:
    """Run one server until it ends or isn't wanted any more.

    Returns:
        The server's exit status, 128 + n if signal n ended it.
    """
    parent = os.getppid()
    spec: Spec = json.loads(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)

    def wake_up(_signal: int, _frame: Any) -> None:
        """Let the wake-up pipe tell the loop."""

    signal.signal(signal.SIGTERM, wake_up)
    signal.signal(signal.SIGCHLD, wake_up)
    try:
        server = _spawn(spec)
    except OSError as error:
        sys.stdout.write(f"!{error}\n")
        return 127
    except subprocess.SubprocessError:  # what `prepare` raised isn't passed on
        sys.stdout.write(f"!this process cannot become user {spec['uid']}; is it root without its capabilities?\n")
        return 126
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    order = _await_order(server, parent, wake_read)
    abandoned = order == b""
    if order is not None:
        quick = order == b"d" or (abandoned and spec["remove"])
        _end(server, spec["drop"] if quick else spec["stop"])
    if abandoned and spec["remove"]:
        shutil.rmtree(spec["remove"], ignore_errors=True)
    status = server.returncode
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
