"""Whoever waits an outage out tries again, says so, shows that it lives, and ends when it is asked to."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from org_service import waiting
from org_service.errors import RetryError, StopError
from org_service.telemetry.logs import get_logger
from org_service.waiting import Heartbeat, Patience, Trouble, pause

log = get_logger(__name__)


def patient(waits_s: tuple[float, float] = (0.001, 0.002), **options: Any) -> Patience:
    return Patience("it waits", waits_s, log=log, **options)


async def failing(times: int, error: Exception, patience: Patience) -> list[str | None]:
    """Try what fails so often; what is waited for at each try."""
    outages: list[str | None] = []
    async for attempt in patience:
        with attempt:
            outages.append(patience.outage)
            if len(outages) <= times:
                raise error
    return outages


async def test_a_step_is_retried_until_it_succeeds_and_its_outage_is_reported() -> None:
    counted: list[Trouble] = []
    with capture_logs() as lines:
        patience = patient(count=counted.append)
        assert await failing(2, RetryError("away"), patience) == [None, "away", "away"]
    assert patience.outage is None
    assert [(line["event"], line["log_level"], line["why"]) for line in lines] == [("it waits", "warning", "away")] * 2
    assert counted == [Trouble("away")] * 2


async def test_an_unexpected_error_is_retried_if_the_caller_says_so_and_logged_with_its_origin() -> None:
    with capture_logs() as lines:
        patience = patient(judge=lambda error: Trouble(type(error).__name__, foreseen=False))
        assert await failing(1, ZeroDivisionError("a payload"), patience) == [None, "ZeroDivisionError"]
    ((line),) = lines
    assert (line["event"], line["log_level"]) == ("unknown error, it waits", "error")
    assert isinstance(line["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("error", [StopError("stop"), ZeroDivisionError()])
async def test_an_error_that_retries_cannot_fix_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        await failing(1, error, patient())


async def test_pauses_double_to_the_longest_and_are_short_again_after_a_success(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting.random, "uniform", lambda _, high: high)
    pauses: list[float] = []

    async def noting(seconds: float, *_: object) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(waiting, "pause", noting)
    tries = aiter(patient((0.1, 0.5)))
    for _ in range(4):
        assert await tries.wait(RetryError())
    tries.succeed()
    assert await tries.wait(RetryError())
    assert pauses == [0.1, 0.2, 0.4, 0.5, 0.1]


def test_pauses_have_jitter() -> None:
    patience = patient((1, 8))
    drawn = [patience.pause_s(3) for _ in range(100)]
    assert len(set(drawn)) > 90
    assert all(4 <= each <= 8 for each in drawn)


async def test_a_loop_has_its_own_pauses_and_shares_the_outage() -> None:
    patience = patient()
    one, other = aiter(patience), aiter(patience)
    assert one.fail(RetryError("away"))
    assert patience.outage == "away"
    other.succeed()
    assert patience.outage is None


@pytest.mark.parametrize("stops", [True, False])
async def test_a_loop_stops_when_asked_even_in_a_pause(stops: bool) -> None:
    stop, tried = asyncio.Event(), 0
    if stops:
        stop.set()
    async with asyncio.timeout(10):
        async for attempt in patient((60, 60), stop=stop):
            with attempt:
                tried += 1
                asyncio.get_running_loop().call_soon(stop.set)
                raise RetryError
    assert tried == (0 if stops else 1)


async def test_a_waiting_loop_keeps_its_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pause may be longer than what /livez allows a silent loop."""
    monkeypatch.setattr(waiting, "BEAT_INTERVAL_S", 0.01)
    heartbeat, stop, beats = Heartbeat(), asyncio.Event(), set[float]()
    wait = asyncio.create_task(pause(60, stop, heartbeat))
    async with asyncio.timeout(10):
        while len(beats) < 5:
            beats.add(heartbeat.at_s)
            await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(10):
        await wait


async def test_each_try_is_a_heartbeat() -> None:
    heartbeat = Heartbeat()
    heartbeat.at_s = 0.0
    seen: list[float] = []
    async for attempt in patient(heartbeat=heartbeat):
        with attempt:
            seen.append(heartbeat.at_s)
            if len(seen) < 3:
                raise RetryError
    assert 0.0 < seen[0] < seen[1] < seen[2]


async def test_cancellation_ends_the_loop_at_once() -> None:
    async def loop(began: Callable[[], None]) -> None:
        async for attempt in patient():
            with attempt:
                began()
                await asyncio.Event().wait()

    begun = asyncio.Event()
    running = asyncio.create_task(loop(begun.set))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
