"""A collector of traces as the protocol has it (OTLP over HTTP, protobuf), and sick ones."""

import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from org_service.settings import TracingSettings


class Span(NamedTuple):
    """A span as it was received."""

    service: str
    roles: tuple[str, ...]
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    """Trace and span."""
    began_ns: int
    ended_ns: int
    failed: bool


class Collector:
    """Listens on a free port of loopback: `with Collector() as collector`.

    Args:
        answer: Answers a request in place of the 200; gets the handler, which has read the body.
    """

    def __init__(self, answer: Callable[[Any], None] | None = None) -> None:
        self.answer = answer
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.raw = b""
        self.asked = threading.Event()
        """Set by the first request."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                collector._receive(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the library
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] - a client that hangs up is no error
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1/traces"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def settings(self, **others: Any) -> TracingSettings:
        """Settings that export to it, and trace all that they may."""
        return TracingSettings.model_validate({"endpoint": self.url, "ratio": 1, "timeout_s": 2, **others})

    def named(self, name: str) -> list[Span]:
        """The spans of a name."""
        return [span for span in self.spans if span.name == name]

    def _receive(self, handler: Any) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        self.asked.set()
        if self.answer is not None:
            self.answer(handler)
            return
        assert handler.headers["content-type"] == "application/x-protobuf"
        self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        self.raw += body
        self.spans += _decode(body)
        handler.send_response(200)
        handler.send_header("content-type", "application/x-protobuf")
        handler.send_header("content-length", "0")
        handler.end_headers()


def answer_status(status: int) -> Callable[[Any], None]:
    """Answers with a status alone."""

    def answer(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("content-length", "0")
        handler.end_headers()

    return answer


def answer_nonsense(handler: Any) -> None:
    """What is no HTTP."""
    handler.wfile.write(b"\x00\xff nonsense\r\n\r\n")
    handler.close_connection = True


def answer_never(handler: Any) -> None:
    """Takes the request and says nothing, until the other side hangs up."""
    handler.connection.settimeout(30)
    with suppress(OSError):
        handler.connection.recv(1)
    handler.close_connection = True


def answer_endlessly(handler: Any) -> None:
    """A body without an end, as fast as it is read."""
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65_536)
    except OSError:
        handler.close_connection = True


def _decode(body: bytes) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(body)
    found: list[Span] = []
    for resource in request.resource_spans:
        about = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            found += [
                Span(
                    about["service.name"],
                    tuple(about.get("orgs.roles", ())),
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    _attributes(span.attributes),
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == 2,
                )
                for span in scope.spans
            ]
    return found


def _attributes(pairs: "list[KeyValue] | Any") -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return None if kind is None else getattr(value, kind)
