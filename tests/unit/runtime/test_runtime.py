"""The order of start and drain, with parts that do only what the test wants."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from org_events.topics import Topics
from org_service import runtime
from org_service.errors import StopError
from org_service.kafka.topics import Difference, TopicPlan
from org_service.settings import EdgeSettings, Settings
from org_service.waiting import Heartbeat
from tests.support.waiting import until

EDGE_OUTCOME_S = 0.2


class Part:
    """A role that notes down when it is asked to end, and ends when it may."""

    def __init__(self, name: str, said: list[str], may_end: asyncio.Event | None = None) -> None:
        self.heartbeats = [Heartbeat()]
        self._name = name
        self._said = said
        self._may_end = may_end

    async def run(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._said.append(f"{self._name} asked")
        if self._may_end is not None:
            await self._may_end.wait()
        self._said.append(f"{self._name} through")


async def run(parts: dict[Any, Part], stop: asyncio.Event, settings: Settings) -> None:
    async with asyncio.timeout(20):
        await runtime.run_parts(cast("Any", parts), stop, settings)


async def test_an_edge_finishes_its_requests_before_worker_and_relay_are_stopped() -> None:
    said: list[str] = []
    answered, stop = asyncio.Event(), asyncio.Event()
    parts = {"worker": Part("worker", said), "relay": Part("relay", said), "edge": Part("edge", said, answered)}
    running = asyncio.create_task(run(parts, stop, Settings()))
    stop.set()
    while not said:
        await asyncio.sleep(0)
    for _ in range(10):  # whoever else was asked would have said so by now
        await asyncio.sleep(0)
    assert said == ["edge asked"]
    answered.set()
    await running
    assert said[:2] == ["edge asked", "edge through"]
    assert sorted(said[2:]) == ["relay asked", "relay through", "worker asked", "worker through"]


async def test_a_part_that_ends_by_itself_drains_the_others_and_what_it_raised_is_raised() -> None:
    said: list[str] = []

    class Failing(Part):
        async def run(self, stop: asyncio.Event) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run({"worker": Part("worker", said), "relay": Failing("relay", said)}, asyncio.Event(), Settings())
    assert said == ["worker asked", "worker through"]


async def test_parts_that_hang_after_the_drain_time_out_are_abandoned_each_at_its_own_limit() -> None:
    """An edge that hangs takes nothing of the time in which worker and relay finish what they have in hand."""
    said: list[str] = []
    never, stop = asyncio.Event(), asyncio.Event()
    parts = {"worker": Part("worker", said, never), "edge": Part("edge", said, never), "relay": Part("relay", said)}
    stop.set()
    began = time.monotonic()
    settings = Settings(drain_timeout_s=0.3, edge=EdgeSettings(outcome_timeout_s=EDGE_OUTCOME_S))
    await run(parts, stop, settings)
    took_s = time.monotonic() - began
    assert said == ["edge asked", "worker asked", "relay asked", "relay through"]
    assert EDGE_OUTCOME_S + 1 + 0.3 <= took_s < EDGE_OUTCOME_S + 1 + 0.3 + 2 * runtime.CLOSE_S + 1


async def test_a_process_that_waits_for_its_dependencies_keeps_its_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart would mend neither a missing topic nor a database that nobody migrated."""
    part, looks = Part("worker", []), 0

    async def missing() -> Sequence[str]:
        """A look at servers that are silent lasts."""
        nonlocal looks
        looks += 1
        began = time.monotonic()
        await until(lambda: part.heartbeats[0].at_s >= began)
        return ["a topic"] if looks < 2 else []

    monkeypatch.setattr(runtime, "PREREQUISITES_WAIT_S", (0.01, 0.01))
    async with asyncio.timeout(5):
        await runtime.wait_for_prerequisites([cast("Any", part)], missing)
    assert looks == 2


def plan_of(*differences: Difference) -> list[TopicPlan]:
    return [TopicPlan(Topics().specs()[0], True, differences)]


async def test_topics_are_checked_again_whatever_the_last_check_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage of Kafka ends no process, what does no harm is said once, and harm is noticed however late."""
    odd = Difference("retention.ms", "1", "2", harmful=False, advice="set it")
    harm = Difference("cleanup.policy", "compact", "delete", harmful=True, advice="don't")
    looks: Iterator[Any] = iter(
        [plan_of(odd), KafkaConnectionError(), plan_of(odd), OSError(), plan_of(odd), plan_of(), plan_of(odd, harm)]
    )

    async def look() -> list[TopicPlan]:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(runtime, "TOPICS_LOOK_S", 0)
    with capture_logs() as lines, pytest.raises(StopError, match="don't"):
        async with asyncio.timeout(20):
            await runtime.watch_topics(look)
    assert next(looks, None) is None
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "a topic differs from its specification"
    ]
    assert len([line for line in lines if line["event"] == "the topics could not be checked"]) == 2
