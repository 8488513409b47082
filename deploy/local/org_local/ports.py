"""Free ports on the loopback interface, outside the range the kernel gives to clients.

A free port is only a guess: between the look and the moment its server listens, seconds later, another stack may find
it free as well, above all one with a copy of the data folder, which remembers the same ports. So a stack claims its
ports for as long as it runs, each by the UDP socket of the same number: the kernel gives that to one process alone,
whoever its user is, takes it back however the process ends, and knows it exactly as far as it knows the port (each
network namespace has its own). Nothing ever talks UDP there.

Declined: lock files. Every user of the machine would have to be able to write them, something would have to remove
them, and two containers with one temporary folder would exclude each other. Cost: a port whose UDP number some other
program uses is passed over. A program that doesn't claim can still take the port, which is why a server is also asked
whose it is before it counts as up.
"""

import contextlib
import random
import socket
from collections.abc import Iterator

from org_local.errors import LocalStackError

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
        LocalStackError: no free port was found.
    """
    for port in _candidates(last):
        if port not in taken and is_free(port):
            taken.add(port)
            return port
    raise _none_found()


def claim(last: int | None) -> tuple[int, socket.socket]:
    """The port used last time if it's free and nobody's claim, else another, and the claim on it.

    The claim lasts until the socket is closed in every process that has it; no other `claim` gets the port till then.

    Raises:
        LocalStackError: no free port was found.
    """
    for port in _candidates(last):
        held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            held.bind((LOOPBACK, port))  # without SO_REUSEADDR, with which UDP would be shared
            if is_free(port):
                return port, held
        held.close()
    raise _none_found()


def _candidates(last: int | None) -> Iterator[int]:
    numbers = random.SystemRandom()
    if last is not None:
        yield last
    for _ in range(_TRIES):
        yield numbers.randint(_FIRST, _LAST)


def _none_found() -> LocalStackError:
    return LocalStackError(
        f"{_TRIES} ports on {LOOPBACK} between {_FIRST} and {_LAST} were tried and none is free; "
        "is the loopback interface up?"
    )
