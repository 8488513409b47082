"""Spans: the only home of OpenTelemetry. What is a span and what a link: decision 0047.

Off, which is the default, `active()` is None, and the hot paths pay one comparison a batch. On, only what is sampled
becomes a span; nothing is made first and thrown away later:

- Where a trace context comes (`traceparent`), its sampled flag decides; where none comes, `ratio` does, and for HTTP
  requests alone: a command without a context has an event without one.
- Anybody may set that flag. So a process traces `sampled_per_s_max` requests, commands or events a second, however
  many ask for it, and a request only once it is known who sent it. What the edge doesn't trace goes on with the flag
  cleared.
- A batch (a worker's, or a relay's transaction) has commands of many traces, so it is a span of its own with a link to
  each; each sampled command and event is a short span in its own trace, with a link back.

Spans hold ids, counts, words of ours and positions: no names, addresses, domains, tokens, users or texts of clients.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Collection, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeGuard
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from org_service.errors import ConfigurationError
from org_service.settings import TracingSettings
from org_service.telemetry.logs import get_logger, log_defect
from org_service.telemetry.span_export import SpanExport

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

log = get_logger(__name__)

TRACEPARENT: Final[ContextVar[str | None]] = ContextVar("traceparent", default=None)
"""Of the request in flight, or of the span that it is in; goes into the commands that it sends."""
TRACE: Final = "orgs.traceparent"
"""Where a request's scope keeps the same, for what is done in other tasks."""
LINKS_MAX: Final = 100
"""Of a batch; below the 128 that the SDK keeps of a span."""
Attributes = Mapping[str, str | int | bool]
Found = dict[str, str | int | bool]
Exemplar = dict[str, str]
"""Labels of an exemplar: which span an observation comes from."""

_SAMPLED: Final = frozenset("13579bdf")
"""Last digits of a `traceparent` whose lowest flag is set."""
_NOT_INSTALLED: Final = (
    "ORGS_TRACING__ENDPOINT is set, but the OpenTelemetry SDK is not installed. Install the service as "
    "`org-service[tracing]`, or opentelemetry-sdk and opentelemetry-exporter-otlp-proto-common beside it; or leave the "
    "setting empty."
)


class Tracing:
    """Makes spans. Used from one loop."""

    def __init__(self, tracer: Tracer, settings: TracingSettings) -> None:
        self._tracer = tracer
        self._ratio = settings.ratio
        self._budget = _Budget(settings.sampled_per_s_max)

    def begin_request(self, method: str, traceparent: str | None, began: float, *, inside: bool) -> Span | None:
        """Begin the span of an HTTP request, if it is sampled, and set `TRACEPARENT`.

        Args:
            method: Of the request, one of HTTP's.
            traceparent: As it came, checked; None where none did.
            began: By `time.perf_counter`.
            inside: It is a tool's, part of a request that was decided about already.
        """
        if inside:
            sampled = is_sampled(traceparent)
        else:
            asked = random.random() < self._ratio if traceparent is None else is_sampled(traceparent)  # noqa: S311
            sampled = asked and self._budget.take()
        if not sampled:
            TRACEPARENT.set(_without_flag(traceparent))
            return None
        kind = SpanKind.INTERNAL if inside else SpanKind.SERVER
        span = self._start(method, traceparent, kind, {"http.request.method": method}, _ns_of(began))
        TRACEPARENT.set(write_traceparent(span))
        return span

    @contextmanager
    def within(self, name: str, traceparent: str, attributes: Attributes, *, sends: bool) -> Generator[Found]:
        """A span inside another one that is sampled. Inside the block it is `TRACEPARENT`.

        Args:
            name: Of the span.
            traceparent: Of the other one.
            attributes: No personal data.
            sends: Whether what is in the block goes to others, rather than happens here.

        Yields:
            For what is known at the end.
        """
        span = self._start(name, traceparent, SpanKind.PRODUCER if sends else SpanKind.INTERNAL, attributes)
        found: Found = {}
        before = TRACEPARENT.set(write_traceparent(span))
        try:
            yield found
        except BaseException as error:
            found["error.type"] = type(error).__name__
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            TRACEPARENT.reset(before)
            span.set_attributes(found)
            span.end()

    def begin_commands(self, began: float) -> "BatchSpan":
        """Begin the span of a worker's batch; `began` by `time.perf_counter`."""
        return BatchSpan(self._tracer, self._budget, "process commands", SpanKind.CONSUMER, _ns_of(began))

    def begin_events(self, began: float) -> "BatchSpan":
        """Begin the span of a relay's transaction; `began` by `time.perf_counter`."""
        return BatchSpan(self._tracer, self._budget, "publish outcomes", SpanKind.PRODUCER, _ns_of(began))

    def _start(
        self, name: str, traceparent: str | None, kind: SpanKind, attributes: Attributes, began_ns: int | None = None
    ) -> Span:
        parent = Context() if traceparent is None else _context_of(_read(traceparent))
        return self._tracer.start_span(name, parent, kind, attributes, start_time=began_ns)


def end_request(span: Span, method: str, route: str, status: int) -> Exemplar:
    """End the span of a request, with the template of its path; returns its exemplar."""
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": status})
    if status >= 500:
        span.set_status(StatusCode.ERROR)
    span.end()
    return _exemplar_of(span)


class BatchSpan:
    """A batch with commands or events of many traces: one span with links, and a span in the trace of each."""

    def __init__(self, tracer: Tracer, budget: "_Budget", name: str, kind: SpanKind, began_ns: int) -> None:
        self._tracer = tracer
        self._budget = budget
        self._name = name
        self._kind = kind
        self._began_ns = began_ns
        self._span: Span | None = None
        self._links_left = LINKS_MAX

    def may_take(self, traceparent: str | None) -> TypeGuard[str]:
        """Whether a command or an event gets a span, for its `traceparent`; takes it out of the budget."""
        if not is_sampled(traceparent) or not self._links_left or not self._budget.take():
            return False
        self._links_left -= 1
        return True

    def add(self, name: str, traceparent: str, attributes: Attributes, began_ns: int | None = None) -> None:
        """Make the span of one that `may_take` let in; it ends now.

        Args:
            name: Of the span.
            traceparent: Of the command.
            attributes: No personal data.
            began_ns: Since 1970; None for the beginning of the batch.

        Never raises: what it tells of is committed, and nothing may undo or repeat that.
        """
        try:
            self._add(name, traceparent, attributes, began_ns)
        except Exception as error:  # noqa: BLE001
            log_defect(log, "a span could not be made", type(error).__name__, error)

    def _add(self, name: str, traceparent: str, attributes: Attributes, began_ns: int | None) -> None:
        if self._span is None:
            self._span = self._tracer.start_span(self._name, Context(), self._kind, start_time=self._began_ns)
        parent = _read(traceparent)
        self._span.add_link(parent)
        now_ns = time.time_ns()
        # Clocks of two machines differ, and no span ends before it begins.
        began_ns = min(began_ns or self._began_ns, now_ns)
        links = [Link(self._span.get_span_context())]
        span = self._tracer.start_span(name, _context_of(parent), self._kind, attributes, links, began_ns)
        span.end(now_ns)

    def end(self, attributes: Attributes) -> Exemplar | None:
        """End it; returns an exemplar for how long it took, None where nothing in it was sampled."""
        if self._span is None:
            return None
        self._span.set_attributes(attributes)
        self._span.end()
        return _exemplar_of(self._span)


class _Budget:
    """So many a second, and as many at once."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._left = per_s
        self._at = time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._per_s, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def is_sampled(traceparent: str | None) -> TypeGuard[str]:
    """Whether whoever made a trace context records it."""
    return traceparent is not None and traceparent[-1] in _SAMPLED


def write_traceparent(span: Span) -> str:
    """A span as the parent of others (W3C Trace Context, section 3.2)."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _without_flag(traceparent: str | None) -> str | None:
    """The context of what is not traced here: whoever comes next shall not trace it for its flag either."""
    if not is_sampled(traceparent):
        return traceparent
    return f"{traceparent[:-2]}{int(traceparent[-2:], 16) & ~TraceFlags.SAMPLED:02x}"


def _read(traceparent: str) -> SpanContext:
    """A context; `wire.ids` has checked its form."""
    flags = TraceFlags(int(traceparent[53:55], 16))
    return SpanContext(int(traceparent[3:35], 16), int(traceparent[36:52], 16), is_remote=True, trace_flags=flags)


def _context_of(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _exemplar_of(span: Span) -> Exemplar:
    context = span.get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _ns_of(began: float) -> int:
    """A moment by `time.perf_counter`, in nanoseconds since 1970."""
    return time.time_ns() - int((time.perf_counter() - began) * 1e9)


_active: list[Tracing] = []
"""The one of this process, while it traces."""


def active() -> Tracing | None:
    """What makes spans; None while tracing is off."""
    return _active[0] if _active else None


@asynccontextmanager
async def tracing(settings: TracingSettings, roles: Collection[str]) -> AsyncGenerator[None]:
    """Trace inside this block, if the settings say so; its end takes `FLUSH_S` at most.

    Raises:
        ConfigurationError: The SDK is not installed.
    """
    if not settings.endpoint:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(_NOT_INSTALLED) from error

    export = SpanExport(settings, lambda spans: encode_spans(spans).SerializeToString())

    class Queued(SpanProcessor):
        def on_end(self, span: "ReadableSpan") -> None:
            export.put(span)

    named = dict(each.split("=", 1) for each in settings.resource)
    resource = Resource.create({"orgs.roles": sorted(roles), **named, "service.name": settings.service_name})
    # Not the global provider: what libraries would trace by themselves (FastAPI, MCP) holds paths and arguments.
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
    provider.add_span_processor(Queued())
    stop = asyncio.Event()
    sending = asyncio.create_task(export.run(stop), name="spans")
    _active[:] = [Tracing(provider.get_tracer("org_service"), settings)]
    log.info("spans go to a collector", collector=urlsplit(settings.endpoint).hostname, ratio=settings.ratio)
    try:
        yield
    finally:
        _active.clear()
        stop.set()
        await sending
