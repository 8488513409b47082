"""The caller's trace, where OpenTelemetry's API is installed: one span from sending a command to its outcome.

Only the API: who configures an SDK gets spans, everybody else pays two microseconds a command and sends no trace
context, or the one that is current. Spans hold ids and outcomes, no names and no tokens.
"""

import asyncio
import json
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Final
from uuid import UUID

try:
    from opentelemetry import trace
except ImportError:
    trace = None

_TOLD: Final = {"outcome": "orgs.outcome", "code": "orgs.code", "position": "orgs.position"}
"""Members of a result, and the attributes that hold them."""


class Sending:
    """The span of one command, or nothing where nobody wants one."""

    def __init__(self, command_type: str, command_id: UUID) -> None:
        self.traceparent: str | None = None
        """For the command's header."""
        self._span = None
        if trace is None:
            return
        about = {"messaging.system": "kafka", "orgs.command.id": str(command_id)}
        tracer = trace.get_tracer("org_events")
        span = tracer.start_span(f"send {command_type}", kind=trace.SpanKind.PRODUCER, attributes=about)
        context = span.get_span_context()
        if context.is_valid:
            self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        if span.is_recording():
            self._span = span

    def end_with(self, outcome: asyncio.Future[bytes], deadline: float) -> None:
        """End it with the outcome, or when nobody waits for that any more; by the loop's clock."""
        if self._span is not None:
            late = asyncio.get_running_loop().call_at(deadline, self._end, "timeout")
            outcome.add_done_callback(partial(self._end_with, late))

    def fail(self, error: BaseException) -> None:
        """End it: the command was not sent."""
        self._end(type(error).__name__)

    def _end_with(self, late: asyncio.TimerHandle, outcome: asyncio.Future[bytes]) -> None:
        late.cancel()
        error = None if outcome.cancelled() else outcome.exception()
        if self._span is None or outcome.cancelled() or error is not None:
            self._end("cancelled" if error is None else type(error).__name__)
            return
        try:
            result: dict[str, object] = json.loads(outcome.result())
        except ValueError:
            result = {}
        for member, attribute in _TOLD.items():
            if isinstance(value := result.get(member), str | int):
                self._span.set_attribute(attribute, value)
        self._end()

    def _end(self, error: str | None = None) -> None:
        span, self._span = self._span, None
        if span is None or trace is None:
            return
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(trace.StatusCode.ERROR)
        span.end()


@contextmanager
def sending(command_type: str, command_id: UUID) -> Generator[Sending]:
    """A span that ends with the block where that fails, and else by `end_with`."""
    span = Sending(command_type, command_id)
    try:
        yield span
    except BaseException as error:
        span.fail(error)
        raise
