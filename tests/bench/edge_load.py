"""Requests at an even rate from a process of its own: open loop, so a slow answer delays no later request.

A latency counts from the moment a request was due, not from when a connection was free for it: waiting that a slow
answer causes others is part of what they waited (coordinated omission).
"""

import math
import pickle
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

from tests.bench.publisher import ROOT
from tests.bench.reader import MismatchError

END_TIMEOUT_S: Final = 60


class Asked(NamedTuple):
    """A request, ready to send, and the status it must get."""

    kind: str
    content: bytes
    status: int


def request(method: str, target: str, token: str, *, body: bytes = b"", **headers: str) -> bytes:
    """A request as it goes over the wire; `_` in the name of a header stands for a hyphen."""
    given = {"host": "bench", "authorization": f"Bearer {token}"} | {n.replace("_", "-"): v for n, v in headers.items()}
    if body:
        given |= {"content-type": "application/json", "content-length": str(len(body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of each request, in their order."""

    latencies_ms: Sequence[float]
    statuses: Sequence[int]


class LoadProcess:
    """The process that asks. A context manager.

    Args:
        port: Of the edge, on loopback.
        connections: Kept alive; requests that find none free wait.
    """

    def __init__(self, port: int, *, connections: int = 64) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.edge_load_process", str(port), str(connections)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The process that asks."""
        return self._process.pid

    def ask(self, requests: Sequence[Asked], rate: float) -> Answered:
        """Send requests at an even rate, in this order, and wait for every answer.

        Raises:
            MismatchError: One got another status than it must: the figures would mean nothing.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump(([each.content for each in requests], rate), self._process.stdin)
        self._process.stdin.flush()
        latencies, statuses = pickle.load(self._process.stdout)
        for asked, status in zip(requests, statuses, strict=True):
            if status != asked.status:
                raise MismatchError(f"{asked.kind}: {status} instead of {asked.status}: {asked.content[:100]!r}")
        return Answered(latencies, statuses)


def percentiles(latencies_ms: Sequence[float]) -> dict[str, float]:
    """p50, p99 (nearest rank) and the longest."""
    ordered = sorted(latencies_ms)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2)

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": round(ordered[-1], 2)}


def by_kind(requests: Sequence[Asked], answered: Answered) -> dict[str, dict[str, Any]]:
    """How many of each kind there were, and how long they took."""
    kinds: dict[str, array[float]] = {}
    for asked, latency_ms in zip(requests, answered.latencies_ms, strict=True):
        kinds.setdefault(asked.kind, array("d")).append(latency_ms)
    return {kind: {"requests": len(each), **percentiles(each)} for kind, each in sorted(kinds.items())}
