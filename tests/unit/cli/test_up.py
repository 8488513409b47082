"""What `orgs up` says while it waits for its roles."""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest

from org_local import ports
from org_service.cli import shell, up
from org_service.serving.health import Check, HealthServer
from org_service.settings import EdgeSettings, OperateSettings, RelaySettings, Settings, WorkerSettings
from org_service.waiting import Heartbeat


class Role:
    """A role that is ready once it is told what it lacks no longer."""

    def __init__(self, lacking: str) -> None:
        self.heartbeats = [Heartbeat()]
        self.lacking = lacking

    def checks(self) -> Mapping[str, Check]:
        return {"postgres": self._answer, "consumer": self._check}

    async def _answer(self) -> str:
        return "answers"

    async def _check(self) -> str:
        if self.lacking:
            raise ValueError(self.lacking)
        return "all there"


async def test_a_slow_start_reports_what_each_role_waits_for_and_ready_follows_when_all_are_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def say(line: str) -> None:
        loop.call_soon_threadsafe(said.put_nowait, line)

    monkeypatch.setattr(shell, "say", say)
    monkeypatch.setattr(up, "PATIENCE_S", 0)
    taken: set[int] = set()
    numbers = [ports.pick(None, taken) for _ in range(4)]
    roles = [Role(""), Role("no partitions yet"), Role(""), Role("")]
    settings = Settings(
        worker=WorkerSettings(port=numbers[0]),
        relay=RelaySettings(port=numbers[1]),
        edge=EdgeSettings(health_port=numbers[2]),
        operate=OperateSettings(port=numbers[3]),
    )
    over = threading.Event()
    announcing = asyncio.create_task(asyncio.to_thread(up.announce, settings, over))
    try:
        async with asyncio.timeout(20), AsyncExitStack() as pages:
            missing = "it has not started yet"
            assert await said.get() == (
                f"not ready yet, waiting for worker: {missing}; relay: {missing}; edge: {missing}; operate: {missing}"
            )
            for role, port in zip(roles, numbers, strict=True):
                server = HealthServer(role, host="127.0.0.1", port=port, stalled_after_s=60)
                await pages.enter_async_context(server)
            while "it has not started yet" in (line := await said.get()):
                pass
            assert line == "not ready yet, waiting for relay: consumer: ValueError: no partitions yet"
            roles[1].lacking = ""
            while (line := await said.get()).startswith("not ready yet"):
                pass
            assert line.startswith("ready: try `orgs send create")
            await announcing
    finally:
        over.set()
        await announcing
