"""The batches in hand: what becomes of them when the worker ends, and when one does not come to its end."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from org_service.settings import Settings
from org_service.worker.records import Record
from org_service.worker.subscriber import Subscriber

SETTINGS = Settings(drain_timeout_s=2.2)


class Stuck:
    """Batches that don't end, and an outage or none."""

    def __init__(self, outage: str | None = None) -> None:
        self.outage = outage
        self.started: list[Any] = []
        self.cancelled: list[Any] = []

    async def apply(self, records: Sequence[Record]) -> None:
        self.started.append(records)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(records)
            raise


async def in_hand(subscriber: Subscriber, applier: Stuck, *batches: str) -> list[asyncio.Task[None]]:
    handling = [asyncio.create_task(subscriber._handle(cast("Any", batch))) for batch in batches]
    while len(applier.started) < len(batches):
        await asyncio.sleep(0)
    return handling


@pytest.mark.parametrize(("outage", "longest_s"), [("away", 0.15), (None, 2.0)])
async def test_what_does_not_end_in_a_drain_is_let_go_all_of_it(outage: str | None, longest_s: float) -> None:
    applier = Stuck(outage)
    subscriber = Subscriber(SETTINGS, applier)
    handling = await in_hand(subscriber, applier, "one", "two")
    began = asyncio.get_running_loop().time()
    await subscriber.stop()
    await asyncio.wait(handling)
    assert asyncio.get_running_loop().time() - began < longest_s
    assert sorted(applier.cancelled) == sorted(applier.started) == ["one", "two"]
    assert not subscriber.failed.done()


async def test_a_batch_that_is_cancelled_by_anybody_else_ends_the_worker() -> None:
    applier = Stuck()
    subscriber = Subscriber(SETTINGS, applier)
    (handling,) = await in_hand(subscriber, applier, "one")
    for task in subscriber._in_hand:
        task.cancel()
    with pytest.raises(RuntimeError, match="cancelled"):
        await subscriber.failed
    await handling
    await subscriber.stop()
