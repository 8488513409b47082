"""`/livez`, `/readyz` and `/metrics`, served from the loop that does the work.

The same loop on purpose: a loop that hangs doesn't answer, and one that answers can be asked for its last beat.
Outages don't fail `/livez`, because a restart fixes neither Kafka nor Postgres: whoever waits one out keeps beating.
They fail `/readyz`, which says what is away. Each check has its time limit, and a check that still hangs from the last
time isn't asked again before it is given up, so that an orchestrator which asks every second can't pile up connections
to a dead server, and a check that will never answer doesn't hang forever.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final, Protocol, Self, cast

import orjson
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics import exposition as openmetrics

from org_service.serving.server import Bounds, HttpServer, listen
from org_service.waiting import Heartbeat

CHECK_TIMEOUT_S: Final = 0.8
"""Of each check, all at once: an orchestrator's own time limit is a second by default."""
HANGS_MAX_S: Final = 5.0
"""After this a check that hangs is given up and asked again."""
_DRAIN_S: Final = 1
"""For answers under way at the end; each takes less."""
_TEXT_CHARS_MAX: Final = 300
"""Of an error in an answer: the first lines say it, the rest is in the logs."""

_BOUNDS: Final = Bounds(connections_max=64, head_bytes_max=8_192)
"""Orchestrators and collectors of metrics are few, and say little."""
_PORTS: Final = "ORGS_WORKER__PORT, ORGS_RELAY__PORT, ORGS_OPERATE__PORT or ORGS_EDGE__HEALTH_PORT"

_OPENMETRICS: Final = "application/openmetrics-text"
"""Who accepts this gets exemplars as well; all others get Prometheus' own text format."""
PATHS: Final = ("/livez", "/readyz", "/metrics")

Check = Callable[[], Awaitable[str]]
"""Says what it saw; raises where that isn't good enough to be ready."""


class Probe(Protocol):
    """What a role tells of itself."""

    @property
    def heartbeats(self) -> Collection[Heartbeat]:
        """Those of its loops, at least one; they go on while an outage is waited out."""
        ...

    def checks(self) -> Mapping[str, Check]:
        """What must be well for the role to be ready, by name."""
        ...


_Page = tuple[int, str, bytes]
"""Status, content type, body."""


class Health:
    """The ASGI application (ASGI 3.0, HTTP only) of one role."""

    def __init__(self, probe: Probe, stalled_after_s: float) -> None:
        self._probe = probe
        self._stalled_after_s = stalled_after_s
        self._asking: dict[str, asyncio.Task[str]] = {}
        """Checks that were asked and have not answered; each ends after `HANGS_MAX_S`."""

    async def __call__(self, scope: Any, _receive: Any, send: Any) -> None:
        """Answer one request."""
        routes = dict(zip(PATHS, (self._live, self._ready, self._metrics), strict=True))
        answer = routes.get(scope["path"])
        if answer is None:
            status, content_type, body = _json(404, {"error": f"only {', '.join(routes)} exist"})
        elif scope["method"] not in ("GET", "HEAD"):
            status, content_type, body = _json(405, {"error": "only GET and HEAD"})
        else:
            status, content_type, body = await answer(scope)
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def close(self) -> None:
        """End the checks that still hang."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _live(self, _: Any) -> _Page:
        silent_s = round(time.monotonic() - min(each.at_s for each in self._probe.heartbeats), 1)
        if silent_s > self._stalled_after_s:
            reason = f"no heartbeat for {silent_s} s, at most {self._stalled_after_s} s are allowed"
            return _json(503, {"status": "stalled", "reason": reason})
        return _json(200, {"status": "alive", "last_beat_s_ago": silent_s})

    async def _ready(self, _: Any) -> _Page:
        checks = self._probe.checks()
        for name, check in checks.items():
            if name not in self._asking:
                self._asking[name] = asyncio.create_task(_awaited(check))
        tasks = {name: self._asking[name] for name in checks}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=CHECK_TIMEOUT_S)
        states = {name: _state(task) for name, task in tasks.items()}
        for name, task in tasks.items():
            if task.done() and self._asking.get(name) is task:
                del self._asking[name]
        ready = all(ok for ok, _ in states.values())
        report = {name: {"ok": ok, "detail": detail} for name, (ok, detail) in states.items()}
        return _json(200 if ready else 503, {"status": "ready" if ready else "not ready", "checks": report})

    async def _metrics(self, scope: Any) -> _Page:
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        if any(each.partition(";")[0].strip().lower() == _OPENMETRICS for each in accepted.split(",")):
            return 200, openmetrics.CONTENT_TYPE_LATEST, cast("bytes", openmetrics.generate_latest(REGISTRY))
        return 200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY)


def _json(status: int, content: object) -> _Page:
    return status, "application/json", orjson.dumps(content)


async def _awaited(check: Check) -> str:
    async with asyncio.timeout(HANGS_MAX_S):
        return await check()


def _state(task: "asyncio.Task[str]") -> tuple[bool, str]:
    if not task.done():
        return False, f"no response in {CHECK_TIMEOUT_S} s"
    if task.cancelled():
        return False, "cancelled"
    error = task.exception()
    if error is None:
        return True, task.result()
    return False, f"{type(error).__name__}: {error}"[:_TEXT_CHARS_MAX]


class HealthServer:
    """Serves one role's health: `async with HealthServer(probe, host=…, port=0, stalled_after_s=120) as server`.

    Entering listens; the end of the block answers what was asked and closes. An orchestrator on another machine needs
    a host that it can reach: the default of the settings is loopback.
    """

    def __init__(self, probe: Probe, *, host: str, port: int, stalled_after_s: float) -> None:
        self._health = Health(probe, stalled_after_s)
        self._host = host
        self.port = port
        """The one that is listened on, once the block is entered; before, 0 stands for a free one."""
        self._serving: HttpServer | None = None

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigurationError: The address can't be used.
        """
        listener = listen(self._host, self.port, ", ".join(PATHS[:2]) + f" and {PATHS[2]}", _PORTS)
        self.port = listener.getsockname()[1]
        self._serving = HttpServer(self._health, listener, _BOUNDS, _answer_malformed, drain_timeout_s=_DRAIN_S)
        await self._serving.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._serving is not None:
            await self._serving.__aexit__()
        await self._health.close()


def _answer_malformed(status: int, detail: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    status, content_type, body = _json(status, {"error": detail})
    return status, [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))], body
