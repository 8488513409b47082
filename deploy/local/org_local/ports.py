"""Free ports on the loopback interface, outside the range the kernel gives to clients."""

import contextlib
import random
import socket

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 17_000, 30_000
"""Below 32768, where Linux takes the ports of outgoing connections (ip(7), ip_local_port_range).

A client that keeps trying to reach a stopped server on a port inside that range can be given this very port and
connect to itself; the server then can't have its port back.
"""
_TRIES = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As the servers do it: what a closed connection left behind (TIME_WAIT) doesn't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return True
    return False


def pick(last: int | None, taken: set[int]) -> int:
    """The port used last time if it's free, else another; added to `taken`.

    Raises:
        OSError: no free port was found.
    """
    numbers = random.SystemRandom()
    wanted = last
    for _ in range(_TRIES):
        if wanted is not None and wanted not in taken and is_free(wanted):
            taken.add(wanted)
            return wanted
        wanted = numbers.randint(_FIRST, _LAST)
    raise OSError(f"no free port on {LOOPBACK} between {_FIRST} and {_LAST}")
