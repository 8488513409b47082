"""Which transaction a record was written in: the headers of record batches say it, and no client shows them.

A result that the relay publishes and the copy that a duplicate gets from the worker are the same bytes. Kafka itself
distinguishes them: the relay writes in transactions, the worker doesn't. So the batches are fetched once more, by a few
requests of our own (Kafka protocol guide: Metadata version 1, Fetch version 4), and only their headers are looked at.
"""

import socket
import struct
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Place = tuple[str, int]
"""A topic and a partition."""

FETCH, FETCH_VERSION = 1, 4
METADATA, METADATA_VERSION = 3, 1
READ_COMMITTED = 1
PARTITION_BYTES_MAX = 4 * 1024 * 1024
FETCH_BYTES_MAX = 64 * 1024 * 1024
ANSWER_TIMEOUT_S = 10
RETRY_WAIT_S = 0.1
"""After a broker was away or no longer the leader."""

HEADER = struct.Struct(">qiibIhiqqqh")
"""Of a batch, as far as its producer (format 2): base offset, bytes that follow, leader epoch, magic, checksum,
attributes, last offset's delta, first and last timestamp, producer id, producer epoch."""
BYTES_BEFORE_LENGTH = 12
"""Base offset and length itself."""
TRANSACTIONAL, CONTROL = 0x10, 0x20
"""Bits of the attributes."""


class Span(NamedTuple):
    """Offsets of one partition, both ends included, that one transaction wrote."""

    first: int
    last: int
    marker: int
    """Offset of the marker that ended the transaction: the same for all of its records in this partition."""


class _Answer:
    """A response, read from front to back."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f">{layout}", self._content, self._at)
        self._at += struct.calcsize(f">{layout}")
        return values

    def number(self, layout: str) -> int:
        return int(self.take(layout)[0])

    def data(self, size: int) -> bytes:
        size = max(size, 0)  # -1 stands for null
        self._at += size
        return self._content[self._at - size : self._at]

    def text(self) -> str:
        return self.data(self.number("h")).decode()


def _ask(host: str, port: int, key: int, version: int, body: bytes) -> _Answer:
    request = struct.pack(">hhih", key, version, 0, -1) + body  # no client id
    with socket.create_connection((host, port), timeout=ANSWER_TIMEOUT_S) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as stream:
            (size,) = struct.unpack(">i", stream.read(4))
            answer = _Answer(stream.read(size))
    answer.take("i")  # the correlation id
    return answer


def _text(content: str) -> bytes:
    return struct.pack(">h", len(content)) + content.encode()


def _leaders(bootstrap_servers: str, topics: Iterable[str]) -> dict[Place, tuple[str, int]]:
    """Host and port of each partition's leader; those without one are left out."""
    names = list(topics)
    body = struct.pack(">i", len(names)) + b"".join(map(_text, names))
    for server in bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        try:
            answer = _ask(host, int(port), METADATA, METADATA_VERSION, body)
        except (OSError, struct.error):
            continue
        return _read_leaders(answer)
    raise ConnectionError(f"none of {bootstrap_servers} answers")


def _read_leaders(answer: _Answer) -> dict[Place, tuple[str, int]]:
    brokers: dict[int, tuple[str, int]] = {}
    for _ in range(answer.number("i")):
        node, host, port = answer.number("i"), answer.text(), answer.number("i")
        answer.text()  # the rack
        brokers[node] = host, port
    answer.take("i")  # the controller
    leaders: dict[Place, tuple[str, int]] = {}
    for _ in range(answer.number("i")):
        answer.take("h")
        topic = answer.text()
        answer.take("?")
        for _ in range(answer.number("i")):
            _, partition, leader = answer.take("hii")
            for _ in range(2):  # replicas, and those in sync
                answer.take(f"{answer.number('i')}i")
            if leader in brokers:
                leaders[topic, partition] = brokers[leader]
    return leaders


class _Log:
    """One partition, read on and on."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.spans: list[Span] = []
        self._open: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def add(self, records: bytes) -> None:
        """Take the batches of an answer, of which the last may be cut short."""
        at = 0
        while at + HEADER.size <= len(records):
            base, length, *_, attributes, delta, _, _, producer, _ = HEADER.unpack_from(records, at)
            at += BYTES_BEFORE_LENGTH + length
            if at > len(records):
                break
            self.offset = base + delta + 1
            if attributes & CONTROL:
                self.spans += (Span(first, last, base) for first, last in self._open.pop(producer, ()))
            elif attributes & TRANSACTIONAL:
                self._open[producer].append((base, base + delta))


def read_spans(
    bootstrap_servers: str, places: Iterable[Place], since: Mapping[Place, int], timeout_s: float = 60
) -> dict[Place, list[Span]]:
    """Everything that transactions wrote to `places`, committed or not, in order of offsets.

    Args:
        bootstrap_servers: host:port, comma-separated, without TLS.
        places: What to read.
        since: The first offset to look at, where it isn't 0.
        timeout_s: For all of it.

    Raises:
        TimeoutError: The ends were not reached in time.
    """
    logs = {place: _Log(since.get(place, 0)) for place in places}
    waiting = set(logs)
    deadline = time.monotonic() + timeout_s
    while waiting:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the ends of {sorted(waiting)} were not reached in {timeout_s} s")
        before = sum(log.offset for log in logs.values()), len(waiting)
        try:
            _fetch_on(bootstrap_servers, logs, waiting)
        except (OSError, struct.error):
            time.sleep(RETRY_WAIT_S)
            continue
        if (sum(log.offset for log in logs.values()), len(waiting)) == before:
            time.sleep(RETRY_WAIT_S)
    return {place: sorted(log.spans) for place, log in logs.items()}


def _fetch_on(bootstrap_servers: str, logs: Mapping[Place, _Log], waiting: set[Place]) -> None:
    """Fetch from each leader once; partitions whose end is reached leave `waiting`."""
    by_leader: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for place, leader in _leaders(bootstrap_servers, {topic for topic, _ in waiting}).items():
        if place in waiting:
            by_leader[leader].append(place)
    for (host, port), places in by_leader.items():
        body = struct.pack(">iiiibi", -1, 0, 0, FETCH_BYTES_MAX, READ_COMMITTED, len(places))
        for topic, partition in places:
            offset = logs[topic, partition].offset
            body += _text(topic) + struct.pack(">iiqi", 1, partition, offset, PARTITION_BYTES_MAX)
        answer = _ask(host, port, FETCH, FETCH_VERSION, body)
        answer.take("i")  # throttled for
        for _ in range(answer.number("i")):
            topic = answer.text()
            for _ in range(answer.number("i")):
                partition, error, _, stable = answer.take("ihqq")
                for _ in range(max(answer.number("i"), 0)):  # aborted transactions
                    answer.take("qq")
                log = logs[topic, partition]
                log.add(answer.data(answer.number("i")))
                if not error and log.offset >= stable:
                    waiting.discard((topic, partition))


def marker_of(spans: list[Span], offset: int) -> int | None:
    """The marker of the transaction that wrote the record at an offset; None where none did."""
    at = bisect_right(spans, offset, key=lambda span: span.first) - 1
    return spans[at].marker if at >= 0 and offset <= spans[at].last else None
