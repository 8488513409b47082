"""/livez, /readyz and /metrics of one role, on a port of its own.

`/livez` says whether the role's loop still turns: an outage that is being waited out keeps it green, because a restart
would not help. `/readyz` asks what the role stands on, each check with a time-out, so that it answers within a second
even when Postgres or Kafka hangs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, Self

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from org_service.errors import StopError

CHECK_TIMEOUT_S: Final = 0.8
"""Of each check of /readyz; they run side by side, so that the answer takes no longer."""

_Send = Callable[[dict[str, Any]], Awaitable[None]]


class Probe(Protocol):
    """What a role tells about itself."""

    @property
    def beat(self) -> float:
        """When its loop last gave a sign of life, by `time.monotonic`."""
        ...

    def checks(self) -> Mapping[str, Callable[[], Awaitable[str]]]:
        """What it stands on, by name; a check returns what it saw, or raises."""
        ...


class HealthServer:
    """Serves the three pages while entered; shares the process's loop, leaves its signals alone."""

    def __init__(self, probe: Probe, *, host: str, port: int, stalled_after_s: float) -> None:
        """Prepare; `port` 0 takes a free one (see `port` after entering)."""
        self._probe = probe
        self._stalled_after_s = stalled_after_s
        config = uvicorn.Config(
            self._answer,
            host=host,
            port=port,
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._address = f"{host}:{port}"
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            StopError: The address can't be had.
        """
        # `serve` would take over the process's signal handlers; its inner part is all that is wanted.
        self._task = asyncio.create_task(self._server._serve())  # pyright: ignore[reportPrivateUsage]
        while not self._server.started:
            await asyncio.sleep(0.005)
            if self._task.done():
                raise StopError(
                    f"can't listen on {self._address} for health and metrics: another process has it; "
                    "set ORGS_WORKER__PORT or ORGS_RELAY__PORT."
                )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _answer(self, scope: Mapping[str, Any], _receive: object, send: _Send) -> None:
        pages = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": _metrics}
        page = pages.get(scope["path"])
        headers: list[tuple[bytes, bytes]] = []
        if page is None:
            status, kind, body = 404, "text/plain", b"pages: /livez /readyz /metrics\n"
        elif scope["method"] not in ("GET", "HEAD"):
            status, kind, body = 405, "text/plain", b"only GET and HEAD\n"
            headers.append((b"allow", b"GET, HEAD"))
        else:
            status, kind, body = await page()
        headers += [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _livez(self) -> tuple[int, str, bytes]:
        silent_s = time.monotonic() - self._probe.beat
        alive = silent_s <= self._stalled_after_s
        return _json(alive, {"alive": alive, "silent_s": round(silent_s, 1), "stalled_after_s": self._stalled_after_s})

    async def _readyz(self) -> tuple[int, str, bytes]:
        names, checks = zip(*self._probe.checks().items(), strict=True)
        answers = await asyncio.gather(
            *(asyncio.wait_for(check(), CHECK_TIMEOUT_S) for check in checks), return_exceptions=True
        )
        ready = not any(isinstance(answer, BaseException) for answer in answers)
        states = {
            name: {"ok": not isinstance(answer, BaseException), "says": _said(answer)}
            for name, answer in zip(names, answers, strict=True)
        }
        return _json(ready, {"ready": ready, "checks": states})


def _said(answer: str | BaseException) -> str:
    if isinstance(answer, TimeoutError):
        return f"no answer within {CHECK_TIMEOUT_S} s"
    if isinstance(answer, BaseException):
        return f"{type(answer).__name__}: {answer}"
    return answer


def _json(good: bool, body: Mapping[str, Any]) -> tuple[int, str, bytes]:
    return 200 if good else 503, "application/json", orjson.dumps(body)


async def _metrics() -> tuple[int, str, bytes]:
    return 200, CONTENT_TYPE_LATEST, generate_latest()
