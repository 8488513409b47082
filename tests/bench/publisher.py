"""A publisher in a process of its own: librdkafka's idempotent producer, acks from all in-sync replicas.

It gets its commands encoded, says when it has them, waits for the word and sends: as fast as it can, or at an even
rate. Times are of the machine's monotonic clock, which all processes share.

Protocol, pickled: in come the commands and the rate, out goes the word that they are there; in comes the word to send,
out goes a `Sent`. The end of input is the end of the process.
"""

import gc
import pickle
import subprocess
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from confluent_kafka import KafkaError, Message, Producer

from tests.bench.load import Encoded

ROOT: Final = Path(__file__).parents[2]
_FLUSH_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Sent:
    """When each command was handed to the client, in their order, and when the broker had the last one."""

    sent_s: array[float]
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
            [sys.executable, "-m", "tests.bench.publisher", bootstrap_servers, topic, str(linger_ms)],
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
            self._process.wait(_FLUSH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

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


def _publish(producer: Producer, topic: str, records: list[tuple[Any, ...]], rate: float | None) -> Sent:
    failed = 0

    def answered(error: KafkaError | None, _: Message) -> None:
        nonlocal failed
        if error is not None:
            failed += 1
            sys.stderr.write(f"publisher: {error}\n")

    sent_s = array("d")
    start = time.monotonic()
    for number, (key, value, headers) in enumerate(records):
        if rate is not None:
            while (ahead_s := start + number / rate - time.monotonic()) > 0:
                producer.poll(0)
                time.sleep(ahead_s)
        sent_s.append(time.monotonic())
        producer.produce(topic, value, key, on_delivery=answered, headers=headers)
        if number % 500 == 0:
            producer.poll(0)
    unanswered = producer.flush(_FLUSH_TIMEOUT_S)
    return Sent(sent_s, time.monotonic(), failed + unanswered)


def main(bootstrap_servers: str, topic: str, linger_ms: str) -> None:
    """Publish until the input ends."""
    source: BinaryIO = sys.stdin.buffer
    target: BinaryIO = sys.stdout.buffer
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",
            "linger.ms": float(linger_ms),
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.list_topics(topic)  # connected before the clock starts
    gc.disable()
    while True:
        try:
            records, rate = pickle.load(source)
            pickle.dump("ready", target)
            target.flush()
            pickle.load(source)
        except EOFError:
            return
        sent = _publish(producer, topic, records, rate)
        pickle.dump(sent, target, pickle.HIGHEST_PROTOCOL)
        target.flush()


if __name__ == "__main__":
    # Under its real name, so that what it pickles can be read by the other side.
    from tests.bench import publisher

    publisher.main(*sys.argv[1:])
