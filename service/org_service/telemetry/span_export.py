"""Spans on their way to a collector (OTLP over HTTP), which must never cost the service more than the spans.

A span that ended goes into a bounded queue; where that is full, it is dropped and counted. One task sends, one batch
at a time, each within a time-out, and reads next to nothing of the answer. A collector that is away, slow or busy is
tried again with the same batch, so that its restart loses no span; whatever else it says drops the batch. The log has
it once when this begins and once when it is over. The end of the process waits a second for it, no longer.

Declined: the SDK's `BatchSpanProcessor` and HTTP exporter. They log each drop, know no metric of ours without
another SDK, read an answer whole however long it is, and end in up to 30 s.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from org_service.domain.reasons import SpanFate
from org_service.settings import TracingSettings
from org_service.settings.tracing import read_headers
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import SPANS
from org_service.waiting import run_unless

log = get_logger(__name__)

BATCH_SPANS_MAX: Final = 256
"""In one request; encoding them takes some 5 ms of the loop."""
INTERVAL_S: Final = 1.0
"""Between exports. At the usual bound of 100 sampled a second the queue holds far more than comes meanwhile."""
RETRY_WAITS_S: Final = (1.0, 30.0)
FLUSH_S: Final = 1.0
"""For what is left when the process ends."""
_ANSWER_BYTES_MAX: Final = 65_536
"""Read so that the connection can be used again."""
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
"""OTLP 1.x, "OTLP/HTTP Response": what is sent again later."""

Encode = Callable[[Sequence[Any]], bytes]
"""Spans as the body of a request."""


class SpanExport:
    """The queue, and the task that empties it: `run` once."""

    def __init__(self, settings: TracingSettings, encode: Encode) -> None:
        self._settings = settings
        self._encode = encode
        self._headers = {**read_headers(settings.headers), "content-type": "application/x-protobuf"}
        self._queue: deque[Any] = deque()
        self._batch: list[Any] = []
        """Taken from the queue, and not with the collector yet."""
        self._trouble: str | None = None

    def put(self, span: Any) -> None:
        """Take a span that ended."""
        if len(self._queue) < self._settings.queue_spans_max:
            self._queue.append(span)
        else:
            SPANS.labels(SpanFate.QUEUE_FULL).inc()

    async def run(self, stop: asyncio.Event) -> None:
        """Send until `stop`, then what is left, as far as that takes no longer than `FLUSH_S`."""
        async with httpx2.AsyncClient(headers=self._headers, timeout=None) as client:
            wait_s = RETRY_WAITS_S[0]
            while not stop.is_set():
                sent = await run_unless(stop, self._send_all(client))  # an export on its way doesn't delay the end
                wait_s = INTERVAL_S if sent else min(wait_s * 2, RETRY_WAITS_S[1])
                await _wait(stop, wait_s)
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._send_all(client)
            except TimeoutError:
                pass
        left = len(self._queue) + len(self._batch)
        if left:
            SPANS.labels(SpanFate.LEFT).inc(left)
            log.warning("spans were not exported before the end", spans=left)

    async def _send_all(self, client: httpx2.AsyncClient) -> bool:
        """Send what there is; False where the collector doesn't take it now."""
        while self._batch or self._queue:
            while self._queue and len(self._batch) < BATCH_SPANS_MAX:
                self._batch.append(self._queue.popleft())
            try:
                fate, trouble = await self._send(client)
            except Exception as error:  # noqa: BLE001 - whatever it is, spans are no reason to end
                fate, trouble = SpanFate.REJECTED, f"a defect, {type(error).__name__}"
            self._say(trouble)
            if fate is None:
                return False
            SPANS.labels(fate).inc(len(self._batch))
            self._batch = []
        return True

    async def _send(self, client: httpx2.AsyncClient) -> tuple[SpanFate | None, str | None]:
        """What becomes of a batch, None for another try; and what is wrong."""
        body = self._encode(self._batch)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                status = await self._post(client, body)
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            return None, type(error).__name__
        if 200 <= status < 300:
            return SpanFate.EXPORTED, None
        return (None if status in _TRY_AGAIN else SpanFate.REJECTED), f"status {status}"

    async def _post(self, client: httpx2.AsyncClient, body: bytes) -> int:
        async with client.stream("POST", self._settings.endpoint, content=body) as response:
            read = 0
            async for part in response.aiter_raw():
                read += len(part)
                if read > _ANSWER_BYTES_MAX:
                    break
            return response.status_code

    def _say(self, trouble: str | None) -> None:
        """Log the first of a row of failures, and its end."""
        if trouble is not None and self._trouble is None:
            host = urlsplit(self._settings.endpoint).hostname
            log.warning("spans are not exported; the service continues without", collector=host, why=trouble)
        elif trouble is None and self._trouble is not None:
            log.info("spans are exported again")
        self._trouble = trouble


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
