"""What an orchestrator is told, over HTTP."""

import asyncio
import http.client
import json
import signal
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from org_service.errors import ConfigurationError
from org_service.serving.health import Check, HealthServer
from org_service.telemetry.metrics import BATCH_SECONDS
from org_service.waiting import Heartbeat


class Probe:
    """A role that says what the test wants."""

    def __init__(self, **checks: Check) -> None:
        self.heartbeats = [Heartbeat()]
        self._checks = checks

    def checks(self) -> Mapping[str, Check]:
        return self._checks


async def fine() -> str:
    return "answers"


async def broken() -> str:
    raise ConnectionRefusedError("no server there")


async def hung() -> str:
    await asyncio.Event().wait()
    return "never"


def serving(probe: Probe) -> HealthServer:
    return HealthServer(probe, host="127.0.0.1", port=0, stalled_after_s=10)


async def ask(
    server: HealthServer, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, Any, http.client.HTTPMessage]:
    """Status, body and headers."""

    def request() -> tuple[int, Any, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        is_json = response.headers["content-type"] == "application/json"
        return response.status, json.loads(body) if is_json and body else body.decode(), response.headers

    return await asyncio.to_thread(request)


async def test_a_loop_that_beats_is_alive() -> None:
    async with serving(Probe()) as server:
        status, body, _ = await ask(server, "/livez")
    assert (status, body["status"]) == (200, "alive")


async def test_a_loop_that_is_silent_for_too_long_is_not_alive_and_the_answer_says_why() -> None:
    probe = Probe()
    probe.heartbeats[0].at_s -= 11
    async with serving(probe) as server:
        status, body, _ = await ask(server, "/livez")
    assert (status, body["status"]) == (503, "stalled")
    assert "at most 10 s are allowed" in body["reason"]


async def test_an_outage_fails_readiness_and_not_liveness() -> None:
    async with serving(Probe(postgres=fine, kafka=broken)) as server:
        ready, body, _ = await ask(server, "/readyz")
        alive, _, _ = await ask(server, "/livez")
    assert (ready, alive) == (503, 200)
    assert body == {
        "status": "not ready",
        "checks": {
            "postgres": {"ok": True, "detail": "answers"},
            "kafka": {"ok": False, "detail": "ConnectionRefusedError: no server there"},
        },
    }


async def test_it_is_ready_when_all_checks_pass() -> None:
    async with serving(Probe(postgres=fine, kafka=fine)) as server:
        status, body, _ = await ask(server, "/readyz")
    assert (status, body["status"]) == (200, "ready")


async def test_readiness_answers_within_a_second_though_a_server_hangs() -> None:
    moments = [time.monotonic()]
    async with serving(Probe(postgres=hung, kafka=fine)) as server:
        for _ in range(3):
            status, body, _ = await ask(server, "/readyz")
            moments.append(time.monotonic())
            assert status == 503
            assert body["checks"]["postgres"] == {"ok": False, "detail": "no response in 0.8 s"}
            assert body["checks"]["kafka"]["ok"]
    assert min(end - start for start, end in pairwise(moments)) < 1  # once is enough: the machine may hang, too


async def test_a_check_that_hangs_is_not_asked_again_until_it_answered() -> None:
    asked = 0
    answer = asyncio.Event()

    async def slow() -> str:
        nonlocal asked
        asked += 1
        await answer.wait()
        return "answers"

    async with serving(Probe(postgres=slow)) as server:
        for _ in range(2):
            assert (await ask(server, "/readyz"))[0] == 503
        assert asked == 1
        answer.set()
        assert (await ask(server, "/readyz"))[0] == 200


async def test_metrics_are_prometheus_text() -> None:
    async with serving(Probe()) as server:
        status, body, headers = await ask(server, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=")
    assert "orgs_relay_lag_seconds" in body


@pytest.mark.parametrize("path", ["/", "/livez/", "/admin"])
async def test_other_paths_are_not_found(path: str) -> None:
    async with serving(Probe()) as server:
        status, body, _ = await ask(server, path)
    assert status == 404
    assert body == {"error": "only /livez, /readyz, /metrics exist"}


async def test_only_get_and_head_are_allowed() -> None:
    async with serving(Probe()) as server:
        status, _, headers = await ask(server, "/livez", "POST")
        assert (status, headers["allow"]) == (405, "GET, HEAD")
        status, body, _ = await ask(server, "/livez", "HEAD")
        assert (status, body) == (200, "")


async def test_a_port_that_is_taken_stops_the_process_with_a_clear_message() -> None:
    async with serving(Probe()) as server:
        with pytest.raises(
            ConfigurationError, match=f"127.0.0.1, port {server.port}.*Choose another port by ORGS_WORKER__PORT"
        ):
            await HealthServer(Probe(), host="127.0.0.1", port=server.port, stalled_after_s=1).__aenter__()


async def test_signals_are_left_to_the_process() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with serving(Probe()) as server:
        await ask(server, "/livez")
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("accept", "open_metrics"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", True),
        ("text/plain, Application/OpenMetrics-Text", True),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text-no, */*", False),
        ("", False),
    ],
)
async def test_exemplars_are_for_those_who_accept_open_metrics(accept: str, open_metrics: bool) -> None:
    BATCH_SECONDS.observe(0.001, {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"})
    async with serving(Probe()) as server:
        status, body, headers = await ask(server, "/metrics", headers={"accept": accept})
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text" if open_metrics else "text/plain")
    assert ("# {" in body) is open_metrics
    assert body.endswith("# EOF\n") is open_metrics
