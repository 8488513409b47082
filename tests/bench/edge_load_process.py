"""The far end of `edge_load`: asks when it is time, whatever became of what it asked before.

Protocol, pickled: in come the requests and their rate, out go latencies in ms and statuses, in their order. The end of
input is the end of the process.
"""

import asyncio
import gc
import pickle
import re
import signal
import sys
import time
from array import array
from collections import deque
from typing import Any

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_BODILESS = (204, 304)


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, asker: "_Asker") -> None:
        self._asker = asker
        self._received = b""
        self._number: int | None = None
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._asker.fail(exc or ConnectionError("the edge closed a connection"))

    def ask(self, number: int, content: bytes) -> None:
        self._number = number
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        status = int(self._received[9:12])
        length = _LENGTH.search(self._received, 0, end)
        if status not in _BODILESS:
            assert length is not None, "an answer without a length"
            end += int(length[1])
        if len(self._received) < end + 4:
            return
        number, self._number, self._received = self._number, None, b""
        assert number is not None
        self._asker.answered(self, number, status)


class _Asker:
    def __init__(self) -> None:
        self._idle: deque[_Connection] = deque()
        self._waiting: deque[int] = deque()
        self._requests: list[bytes] = []
        self._due_s = array("d")
        self._latencies_ms = array("d")
        self._statuses = array("i")
        self._left = 0
        self._done: asyncio.Future[None] | None = None

    async def connect(self, port: int, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", port)
            self._idle.append(connection)

    async def ask(self, requests: list[bytes], rate: float) -> tuple[Any, Any]:
        self._requests, self._left = requests, len(requests)
        self._latencies_ms, self._statuses = array("d", bytes(8 * len(requests))), array("i", bytes(4 * len(requests)))
        self._done = asyncio.get_running_loop().create_future()
        start = time.monotonic()
        self._due_s = array("d", (start + number / rate for number in range(len(requests))))
        for number, due_s in enumerate(self._due_s):
            while (ahead_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(ahead_s)
            self._waiting.append(number)
            self._send()
        await self._done
        return self._latencies_ms, self._statuses

    def _send(self) -> None:
        while self._waiting and self._idle:
            number = self._waiting.popleft()
            self._idle.popleft().ask(number, self._requests[number])

    def answered(self, connection: _Connection, number: int, status: int) -> None:
        self._latencies_ms[number] = (time.monotonic() - self._due_s[number]) * 1000
        self._statuses[number] = status
        self._idle.append(connection)
        self._send()
        self._left -= 1
        if self._left == 0 and self._done is not None:
            self._done.set_result(None)

    def fail(self, error: Exception) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)


async def main(port: int, connections: int) -> None:
    """Ask until the input ends."""
    loop = asyncio.get_running_loop()
    asker = _Asker()
    await asker.connect(port, connections)
    while True:
        try:
            requests, rate = await loop.run_in_executor(None, pickle.load, sys.stdin.buffer)
        except EOFError:
            return
        gc.collect()
        gc.freeze()
        answers = await asker.ask(requests, rate)
        pickle.dump(answers, sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for the near end, which then closes the input
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
