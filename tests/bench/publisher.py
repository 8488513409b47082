"""The near end of a publisher in a process of its own; the far end is `publisher_process`."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.bench.load import Encoded

ROOT: Final = Path(__file__).parents[2]
FLUSH_TIMEOUT_S: Final = 60
"""How long the broker may take to answer for what it was sent."""


@dataclass(frozen=True, slots=True)
class Sent:
    """When each command was handed to the client, in their order, and when the broker had the last one."""

    sent_s: Sequence[float]
    acknowledged_s: float
    failed: int


class PublisherProcess:
    """One publisher to one topic. A context manager.

    Args:
        bootstrap_servers: Where Kafka is.
        topic: Where to.
        linger_ms: How long a record waits for company; librdkafka's default is 5.
    """

    def __init__(self, bootstrap_servers: str, topic: str, *, linger_ms: float = 5) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.publisher_process", bootstrap_servers, topic, str(linger_ms)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._commands: Sequence[Encoded] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(FLUSH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The far end."""
        return self._process.pid

    def load(self, commands: Sequence[Encoded], *, rate: float | None = None) -> None:
        """Hand commands over; returns when they are there.

        Args:
            commands: To be sent in this order.
            rate: Commands a second; None is as fast as possible.
        """
        records = [(command.key, command.value, command.headers) for command in commands]
        self._write((records, rate))
        self._read()

    def go(self) -> None:
        """Say the word; returns at once."""
        self._write(None)

    def finish(self) -> Sent:
        """Wait until the broker answered for every command.

        Raises:
            RuntimeError: It did not take one.
        """
        sent: Sent = self._read()
        if sent.failed:
            raise RuntimeError(f"the broker did not take {sent.failed} commands")
        return sent

    def _write(self, message: object) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin, pickle.HIGHEST_PROTOCOL)
        self._process.stdin.flush()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)
        except EOFError as error:
            raise RuntimeError("the publisher ended; see its words above") from error
