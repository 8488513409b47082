"""A relay that waits, as a follower or in an outage, is alive however long it waits."""

import asyncio

import pytest

from org_service.relay import Relay, relay
from org_service.settings import Settings


async def test_a_relay_that_waits_goes_on_beating(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its interval may be longer than what /livez allows a silent loop."""
    monkeypatch.setattr(relay, "_BEAT_INTERVAL_S", 0.01)
    waiting, stop, beats = Relay(Settings()), asyncio.Event(), set[float]()
    wait = asyncio.create_task(waiting._wait(stop, 60))
    async with asyncio.timeout(10):
        while len(beats) < 5:
            beats.add(waiting.beat)
            await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(10):
        await wait
