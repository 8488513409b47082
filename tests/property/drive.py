"""The real worker and relay inside one process, driven step by step from synchronous code."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import orjson

from org_service.relay.relay import Relay
from org_service.settings import Settings
from tests.support.appliers import applying
from tests.support.checker import judge
from tests.support.observed import Observed, Record, Since, TopicReader, observe, read_tables
from tests.support.outgoing import relay_position
from tests.support.published import Published
from tests.support.sending import Publisher, Sending

T = TypeVar("T")

APPLY_TIMEOUT_S = 30
SETTLE_TIMEOUT_S = 20
APPLIERS = 3
"""Workers that may hold the same records for a moment, as in a rebalance."""


class Drive:
    """Everything one run of the state machine needs; it outlives the examples."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = settings.kafka.topics
        self.database_url = settings.database.url.get_secret_value()
        self._runner = asyncio.Runner()
        self._reader = TopicReader(settings.kafka.bootstrap_servers)
        self.publisher = Publisher(settings.kafka.bootstrap_servers, self.topics.commands)
        self._made = AsyncExitStack()
        self._appliers = [self.run(self._made.enter_async_context(applying(settings))) for _ in range(APPLIERS)]
        self._relay: asyncio.Task[None] | None = None
        self._relay_stop = asyncio.Event()
        self.since = Since()
        self.examples = 0
        self.seen: Counter[str] = Counter()
        """What became of commands, by event type or problem: proof that the search was not hollow."""

    def close(self) -> None:
        """Stop everything."""
        if self._relay is not None:
            self._relay_stop.set()
            self.run(self._relay)
        self.run(self._made.aclose())
        self._runner.close()
        self.publisher.close()
        self._reader.close()

    def run(self, awaitable: Awaitable[T]) -> T:
        """Let the loop work until `awaitable` is done."""

        async def bounded() -> T:
            return await asyncio.wait_for(awaitable, APPLY_TIMEOUT_S)

        return self._runner.run(bounded())

    def begin(self) -> None:
        """Note where everything ends now: the next example begins there."""
        self.settle()
        everything = (
            self.topics.commands,
            self.topics.results,
            self.topics.events,
            self.topics.state,
            self.topics.relay,
        )
        _, ends = self._reader.read(everything, self.since.offsets)
        self.since = Since(ends, self.run(read_tables(self.database_url, 2**62, ())).head)
        self.examples += 1

    def publish(self, sendings: Sequence[Sending]) -> tuple[list[Published], list[Record]]:
        """Publish, and wait for the broker: the publisher's notes and the records as the log has them."""
        notes, records = len(self.publisher.published), len(self.publisher.records)
        for sending in sendings:
            self.publisher.send(sending)
        self.publisher.flush()
        return self.publisher.published[notes:], self.publisher.records[records:]

    def apply(self, batches: Sequence[Sequence[Record]]) -> None:
        """Let as many workers as there are batches apply them at the same time, each its own."""
        works = [applier.apply(batch) for applier, batch in zip(self._appliers, batches, strict=False)]
        self.run(_all(works))

    def let_relay_work(self, seconds: float) -> None:
        """Run the relay for a while, wherever that ends."""
        self._start_relay()
        assert self._relay is not None
        self.run(asyncio.wait({self._relay}, timeout=seconds))

    def abandon_relay(self) -> None:
        """Drop the relay wherever it is, perhaps in the middle of a transaction."""
        if self._relay is not None:
            self._relay.cancel()
            self.run(asyncio.wait({self._relay}))
            self._relay = None

    def settle(self) -> None:
        """Let the relay publish all there is."""
        self._start_relay()
        self.run(self._until_published())

    def judge(self, published: Sequence[Published], org_ids: Sequence[str]) -> None:
        """Compare everything since `begin` with the oracle.

        Raises:
            AssertionError: With the checker's report.
        """
        observed = self._observe(org_ids)
        findings = judge(observed, published)
        assert findings.ok, findings.text()
        for row in observed.journal:
            self.seen[row.event_type or (orjson.loads(row.problem)["type"] if row.problem else row.outcome)] += 1
        self.seen.update({name: findings.counts[name] for name in ("duplicates", "ids reused", "unreadable")})

    def _observe(self, org_ids: Sequence[str]) -> Observed:
        return observe(self._reader, self.database_url, self.topics, self.since, org_ids=org_ids)

    def _start_relay(self) -> None:
        if self._relay is not None and self._relay.done():
            self._relay.result()
            self._relay = None
        if self._relay is None:

            async def begin() -> asyncio.Task[None]:
                self._relay_stop = asyncio.Event()
                return asyncio.create_task(Relay(self.settings).run(self._relay_stop))

            self._relay = self.run(begin())

    async def _until_published(self) -> None:
        head = (await read_tables(self.database_url, 2**62, ())).head
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        since: dict[tuple[str, int], int] = {}
        position = 0
        while position < head:
            assert self._relay is not None
            if self._relay.done():
                self._relay.result()
                raise AssertionError("the relay ended by itself")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the relay stands at {position}, the head is {head}")
            found, since = await asyncio.to_thread(self._reader.read, (self.topics.relay,), since)
            if found[self.topics.relay]:
                position = relay_position(found[self.topics.relay][-1])


async def _all(works: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Await them all, even when one fails, so that none goes on behind the next step's back."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
