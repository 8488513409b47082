"""Handlers: called for each change, tried again, and what still fails waits while the rest goes on (guarantee 7).

An organization of which something waits is parked: what comes of it later waits behind, in order, until `release`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import chain, repeat
from typing import Final, Generic

from org_events.subscribing.changes import Change, Keeper, Session
from org_events.subscribing.errors import StillParked, Superseded
from org_events.subscribing.filters import Filter
from org_events.subscribing.lane import Lane
from org_events.subscribing.parking import Patience, pack, unpack
from org_events.subscribing.stores import Parked

_log = logging.getLogger(__name__)

BEHIND: Final = ""
"""The reason of what waits only because something before it does."""


class Batch(Generic[Session]):
    """Changes of one partition, in order: those that one fetch brought. To be handled together."""

    def __init__(
        self, keeper: Keeper[Session], everything: Sequence[Change[Session]], changes: Sequence[Change[Session]]
    ) -> None:
        self._keeper = keeper
        self._everything = everything
        self.changes = changes
        """Those that are wanted; at least one."""

    def __iter__(self) -> Iterator[Change[Session]]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """As `Change.transaction`, for all of them: a tenth of the cost of one for each."""
        return self._keeper.transaction(*self._everything)


ChangeHandler = Callable[[Change[Session]], Awaitable[object]]
BatchHandler = Callable[[Batch[Session]], Awaitable[object]]


class Handling(Generic[Session]):
    """Calls a handler for what is handed out.

    Args:
        wanted: Others count as handled.
        patience: With a handler that raises.
        stopping: Ends the waits.
        one: Called for each change, or
        many: called for each batch, and for single changes where it raises for a batch.
    """

    def __init__(
        self,
        wanted: Filter,
        patience: Patience,
        stopping: asyncio.Event,
        *,
        one: ChangeHandler[Session] | None = None,
        many: BatchHandler[Session] | None = None,
    ) -> None:
        self._wanted = wanted
        self._patience = patience
        self._stopping = stopping
        self._one = one
        self._many = many

    async def handle(self, lane: Lane[Session], changes: Sequence[Change[Session]]) -> None:
        """Handle what was handed out; where `lane.lost` afterwards the rest comes again."""
        if self._many is not None and await self._handle_together(lane, changes):
            return
        for change in changes:
            if lane.lost:
                return
            if not self._wanted.wants(change):
                lane.done(change)
            elif change.key in lane.parked:
                await lane.park(change, pack(change, BEHIND))
            else:
                await self._handle_patiently(lane, change)

    async def release(self, lane: Lane[Session], key: bytes) -> int:
        """Handle what is parked of an organization, in order.

        Returns:
            How many changes were handled.

        Raises:
            StillParked: The handler raises again; what came before is handled.
            Superseded: Another process has the partition.
        """
        released = 0
        while waiting := lane.parked.get(key):
            keeper = _Releasing(lane, waiting[0])
            change: Change[Session] = unpack(waiting[0], keeper)
            try:
                await self._call(change, keeper)
                await keeper.settle()
            except Superseded:
                raise
            except Exception as error:
                raise StillParked(change.org_id, change.version, error) from error
            released += 1
        return released

    async def _handle_together(self, lane: Lane[Session], changes: Sequence[Change[Session]]) -> bool:
        wanted = [change for change in changes if self._wanted.wants(change)]
        if any(change.key in lane.parked for change in wanted):
            return False
        try:
            if wanted and self._many is not None:
                await self._many(Batch(lane, changes, wanted))
        except Exception as error:  # noqa: BLE001 - tried one by one, to find out whose fault it is
            if lane.lost:
                return True
            _log.warning("a batch of %d changes failed, and is handled one by one: %r", len(wanted), error)
            return lane.has_saved(changes[-1])
        if not lane.has_saved(changes[-1]):
            for change in changes:
                lane.done(change)
        return True

    async def _handle_patiently(self, lane: Lane[Session], change: Change[Session]) -> None:
        for wait_s in self._waits(lane):
            try:
                await self._call(change, lane)
            except Exception as error:  # noqa: BLE001 - a handler raises whatever it likes
                if lane.lost or lane.has_saved(change):
                    return
                if wait_s is None:
                    _log.exception("%r failed and is parked, with all that follows of this organization", change)
                    await lane.park(change, pack(change, repr(error)))
                    return
                _log.warning("%r failed and is tried again: %r", change, error)
                if await self._is_stopped_within(wait_s):
                    lane.lost = True
                    return
            else:
                lane.done(change)
                return

    def _waits(self, lane: Lane[Session]) -> Iterator[float | None]:
        """Between tries; None says that it was the last."""
        few = len(lane.parked) < self._patience.parked_organizations_max
        return chain(self._patience.waits_s, [None] if few else repeat(self._patience.longest_wait_s))

    async def _is_stopped_within(self, wait_s: float) -> bool:
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    async def _call(self, change: Change[Session], keeper: Keeper[Session]) -> None:
        if self._one is not None:
            await self._one(change)
        elif self._many is not None:
            await self._many(Batch(keeper, [change], [change]))


class _Releasing(Generic[Session]):
    """Keeps that a parked change was handled."""

    def __init__(self, lane: Lane[Session], parked: Parked) -> None:
        self._lane = lane
        self._parked = parked
        self._settled = False

    @asynccontextmanager
    async def transaction(self, *changes: Change[Session]) -> AsyncGenerator[Session]:
        """As of a lane; there is one change."""
        del changes
        async with self._lane.releasing(self._parked) as session:
            yield session
        self._settled = True

    async def settle(self) -> None:
        """Save it, unless that was done with the subscriber's own work."""
        if not self._settled:
            async with self.transaction():
                pass
