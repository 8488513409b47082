"""Gives changes to a handler of the kit as the kit does: by an `OrganizationSubscriber`, over logs made by hand.

Each delivery is a process of its own: a subscriber starts with what the store knows, reads both topics to their ends,
and stops. So what a handler leaves half done meets what its store saved of it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

from org_events.subscribing import Change, Kind, OrganizationSubscriber, Patience, Store
from org_events.subscribing.lane import Fetched
from org_events.subscribing.lives import Log
from org_events.subscribing.sources import Ends, OnRevoked
from org_events.subscribing.stores import Mark
from org_events.testing.changes import STATE_TOPIC
from org_events.testing.golden import Message
from org_events.testing.harness import cancel_at, note_message, watched

Session = TypeVar("Session")

_IMPATIENT: Final = Patience(waits_s=())
"""What a handler raises ends its case, so it is not tried again."""
_PAUSE_S: Final = 0.001
"""Where nothing is new."""


class KitHarness(Generic[Session]):
    """Hands messages to a handler of `Change`s.

    Args:
        handler: An async function of a change.
        store: Gives the subscriber's store; called for each process.
    """

    def __init__(
        self, handler: Callable[[Change[Session]], Awaitable[object]], store: Callable[[], Store[Session]]
    ) -> None:
        self._handler = handler
        self._store = store
        self._logs, self._loaded = Logs(), False

    async def deliver(self, messages: Iterable[Message]) -> None:
        """A process that finds these behind what is there already; records of `orgs.state` it loads.

        Raises:
            Exception: What the handler raised; the message is in its notes.
        """
        arriving = list(messages)
        self._logs.append(*(each for each in arriving if each.topic == STATE_TOPIC))
        await self._load()
        self._logs.append(*(each for each in arriving if each.topic != STATE_TOPIC))
        await self._handle_all()

    async def deliver_half(self, message: Message, suspensions: int) -> bool:
        """A process that ends where the handler waits for the `suspensions`-th time; what it did not save comes again.

        Returns:
            Whether the handler came to its end before.
        """
        await self._load()
        if message not in self._logs.events[-1:]:
            self._logs.append(message)
        return await self._run(lambda change: cancel_at(self._hand_over(change), suspensions), [])

    async def _load(self) -> None:
        """The state of topics that are new to the subscriber, before there are events behind it."""
        if not self._loaded:
            self._loaded = True
            await self._handle_all()

    async def _handle_all(self) -> None:
        failed: list[Exception] = []

        async def handle(change: Change[Session]) -> None:
            try:
                await self._hand_over(change)
            except Exception as error:
                failed.append(error)  # raised below: the kit would be patient with it
                raise

        await self._run(handle, failed)
        if failed:
            raise failed[0]

    def recreate_topics(self) -> None:
        """Both topics are deleted and created: another id, and nothing in them."""
        self._logs, self._loaded = Logs(), False

    async def _hand_over(self, change: Change[Session]) -> None:
        message = self._logs.find(change)
        try:
            with watched(change, message) as given:
                await self._handler(given)
        except Exception as error:
            note_message(error, message)
            raise

    async def _run(self, handle: Callable[[Change[Session]], Awaitable[None]], failed: Sequence[Exception]) -> bool:
        """One process; whether it was not cancelled."""
        subscriber = OrganizationSubscriber[Session](
            bootstrap_servers="", store=self._store(), source=self._logs, patience=_IMPATIENT
        )
        await subscriber.start()
        running = asyncio.create_task(subscriber.run(handle))
        reading = asyncio.create_task(subscriber.reached(0))
        while not failed and not running.done() and not reading.done():
            await asyncio.wait({running, reading}, timeout=_PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await subscriber.stop()
        reading.cancel()
        await asyncio.wait({running, reading})
        if not running.cancelled():
            running.result()
        return not running.cancelled()


class Logs:
    """One partition of `orgs.events` and one of `orgs.state`; a `Source`."""

    partitions = settled_partitions = 1

    def __init__(self) -> None:
        self.events: list[Message] = []
        self.states: list[Message] = []
        self.assigned: Collection[int] | None = None
        self._topic_id = uuid4()
        self._loading: int | None = None
        self._following: int | None = None

    def append(self, *messages: Message) -> None:
        """At the ends of their topics."""
        for message in messages:
            log = self.states if message.topic == STATE_TOPIC else self.events
            log.append(replace(message, offset=len(log)))

    def find(self, change: Change[Any]) -> Message | None:
        """The record of a change; None of one that was computed."""
        if change.kind is Kind.GONE:
            return None
        return (self.states if change.kind is Kind.LOADED else self.events)[change.offset]

    async def start(self, on_revoked: OnRevoked) -> None:
        """See `Source.start`; there is no rebalance."""
        del on_revoked
        self.assigned = (0,)

    async def stop(self) -> None:
        """See `Source.stop`."""
        self.assigned = self._loading = self._following = None

    def take_doubt(self) -> bool:
        """See `Source.take_doubt`."""
        return False

    async def refresh(self) -> None:
        """See `Source.refresh`; nothing is new."""

    async def look(self, marks: Mapping[int, Mark | None]) -> dict[int, Log]:
        """See `Source.look`."""
        return dict.fromkeys(marks, Log(self._topic_id, 0, len(self.events)))

    async def look_at_states(self, partitions: Sequence[int]) -> dict[int, Ends]:
        """See `Source.look_at_states`."""
        return dict.fromkeys(partitions, Ends(0, len(self.states)))

    async def find_time(self, partition: int, time: datetime) -> int | None:
        """See `Source.find_time`; the golden records have no times."""
        raise NotImplementedError

    async def find_position(self, partition: int, position: int, log: Log) -> int:
        """See `Source.find_position`."""
        del partition
        later = (each.offset for each in self.events if int(each.header["ce_position"]) > position)
        return next(later, log.stable)

    async def find_ends(self, partitions: Sequence[int]) -> dict[int, int]:
        """See `Source.find_ends`."""
        return dict.fromkeys(partitions, len(self.events))

    async def find_published(self) -> int:
        """See `Source.find_published`."""
        return max((int(each.header["ce_position"]) for each in self.events), default=0)

    def load(self, partition: int, offset: int) -> None:
        """See `Source.load`."""
        del partition
        self._loading, self._following = offset, None

    def follow(self, partition: int, offset: int) -> None:
        """See `Source.follow`."""
        del partition
        self._loading, self._following = None, offset

    async def poll(self) -> list[Fetched]:
        """See `Source.poll`."""
        await asyncio.sleep(_PAUSE_S)
        if self._loading is not None:
            found, self._loading = self.states[self._loading :], len(self.states)
            return [Fetched(0, True, found, self._loading, 0)]
        if self._following is not None:
            found, self._following = self.events[self._following :], len(self.events)
            return [Fetched(0, False, found, self._following, 0)]
        return []

    async def tell(self, offsets: Mapping[int, int]) -> None:
        """See `Source.tell`; nobody looks."""
