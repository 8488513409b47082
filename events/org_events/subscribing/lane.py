"""One partition at work: what was fetched of it becomes changes, and what was handled of them is saved.

One batch at a time: its organizations' versions are read, its changes decided in memory and handed out, and how far
they were handled is written, before the next batch is looked at. So nothing is decided on versions that aren't saved.
"""

import asyncio
from collections.abc import AsyncGenerator, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Generic, NamedTuple

from org_events.subscribing.changes import Change, Record, Session
from org_events.subscribing.errors import Superseded
from org_events.subscribing.folding import (
    Versioned,
    drop_left_behind,
    find_gone,
    fold_events,
    fold_states,
    read_versions,
)
from org_events.subscribing.lives import Following, Life, Loading
from org_events.subscribing.stores import Claim, Mark, Parked, Progress, Store


class Fetched(NamedTuple):
    """What came of one partition."""

    partition: int
    from_state: bool
    """Whether of `orgs.state`."""
    records: Sequence[Record]
    position: int
    """Of the consumer, behind them."""
    epoch: int = -1
    """Of the leader that wrote the last one; -1 where there is none."""


class Place(NamedTuple):
    """A partition among others."""

    partition: int
    partitions: int
    settled_partitions: int
    """How many what is published is spread over; fewer while the topics grow."""


class Lane(Generic[Session]):
    """A partition that this process has.

    Args:
        place: Its number among others.
        store: What is known.
        claim: What the store said when this process took it over.
        mark: What is to be saved next.
        life: Where it begins.
    """

    def __init__(self, place: Place, store: Store[Session], claim: Claim, mark: Mark, life: Life) -> None:
        self.place = place
        self.life = life
        self.lost = False
        """Nothing may be handled here any more: it is somebody else's, or must be opened again."""
        self.handled = -1
        """The offset of `orgs.events` up to which everything was handled and, every now and then, saved."""
        self.mark = mark
        self.parked: dict[bytes, list[Parked]] = {}
        for each in claim.parked:
            self.parked.setdefault(each.key, []).append(each)
        self._store = store
        self._fence = claim.fence
        self._versions: dict[bytes, int] = {}
        """Handled, and not saved yet."""
        self._unsaved = True
        self._ahead = life
        """How it lives on when what was handed out is handled."""
        self._seen: set[bytes] | None = set() if isinstance(life, Loading) and claim.marks else None
        """Only where something was known before the load can something be gone behind it."""
        self._last: Change[Session] | None = None
        """What was saved with the subscriber's own work."""
        self._lock = asyncio.Lock()
        """Held while something is handled in a transaction, or saved."""

    async def take(self, fetched: Fetched) -> list[Change[Session]]:
        """The changes that records bring. When all are `done`, `finish`."""
        life = self.life
        records = read_versions(fetched.records)
        if isinstance(life, Loading):
            records = drop_left_behind(records, self.place.partition, self.place.settled_partitions)
            self._ahead = life._replace(position=fetched.position)
            changes = fold_states(records, await self._known(records), self)
            return changes + await self._find_gone(records)
        self._ahead = Following(fetched.position)
        if fetched.records:
            self.mark = self.mark._replace(epoch=fetched.epoch, epoch_offset=fetched.records[-1].offset + 1)
        return fold_events(records, await self._known(records), self, whole=self.mark.whole)

    def done(self, change: Change[Session]) -> None:
        """A change was handled; the next `save` writes it down, unless that was done with the subscriber's own work."""
        if change is not self._last:
            self._versions[change.key] = _known_after(change)
            self.mark = self._mark_behind(change)
            self._unsaved = True

    async def finish(self, *, save: bool = True) -> None:
        """All that was handed out is handled.

        Args:
            save: False leaves it to a later call where nothing but the offset has changed.
        """
        life = self._ahead
        if isinstance(life, Loading) and life.ended:
            self.mark = self.mark._replace(loading=False, whole=True, offset=life.follow_from)
            self._unsaved, self._seen = True, None
            life, save = Following(life.follow_from), True
        if isinstance(life, Following):
            self._unsaved = self._unsaved or self.mark.offset != life.position
            self.mark = self.mark._replace(offset=life.position)
            self.handled = life.position
        self.life = life
        if save or self._versions:
            await self.save()

    async def save(self) -> None:
        """Write down what was handled.

        Raises:
            Superseded: Another process has the partition; `lost` is set.
        """
        if self._versions or self._unsaved:
            async with self._writing():
                pass

    @asynccontextmanager
    async def transaction(self, *changes: Change[Session]) -> AsyncGenerator[Session]:
        """See `Change.transaction`; of several that were handed out one after the other."""
        async with self._writing(changes) as session:
            yield session
        self._last = changes[-1]

    def has_saved(self, change: Change[Session]) -> bool:
        """Whether the last transaction ended with this change."""
        return change is self._last

    async def park(self, change: Change[Session], parked: Parked) -> None:
        """Keep a change for later, and those behind it; it counts as handled."""
        async with self._writing([change], [parked]):
            pass
        self.parked.setdefault(parked.key, []).append(parked)
        self._last = change

    @asynccontextmanager
    async def releasing(self, parked: Parked) -> AsyncGenerator[Session]:
        """A transaction in which the first parked change of an organization is handled."""
        async with self._writing((), (), [(parked.key, parked.version)]) as session:
            yield session
        self.parked[parked.key].remove(parked)
        if not self.parked[parked.key]:
            del self.parked[parked.key]

    async def give_up(self) -> None:
        """Somebody else gets the partition: save what was handled, when what is being handled is done."""
        async with self._lock:
            if self.lost:
                return
        try:
            await self.save()
        except Superseded:
            pass
        finally:
            self.lost = True

    @asynccontextmanager
    async def _writing(
        self,
        changes: Sequence[Change[Session]] = (),
        parked: Sequence[Parked] = (),
        released: Sequence[tuple[bytes, int]] = (),
    ) -> AsyncGenerator[Session]:
        """A transaction that saves, besides what was handled before, some changes.

        Where it fails nobody knows whether it was committed. Then the fence tells, at the next save: if it was, this
        one is superseded by it, and the partition is opened again where it really is.
        """
        async with self._lock:
            if self.lost:
                raise Superseded(f"partition {self.place.partition}")
            progress = self._progress(changes)._replace(parked=parked, released=released)
            try:
                async with self._store.transaction() as session:
                    yield session
                    await self._store.save(session, progress)
            except Superseded:
                self.lost = True
                raise
            self._fence += 1
            self.mark, self._unsaved = progress.mark, False
            self._versions.clear()

    def _progress(self, changes: Sequence[Change[Session]]) -> Progress:
        versions = self._versions | {change.key: _known_after(change) for change in changes}
        mark = self._mark_behind(changes[-1]) if changes else self.mark
        return Progress(self.place.partition, self._fence, mark, versions)

    def _mark_behind(self, change: Change[Session]) -> Mark:
        return self.mark if self.mark.loading else self.mark._replace(offset=change.offset + 1)

    async def _known(self, records: Sequence[Versioned]) -> MutableMapping[bytes, int]:
        if not records:
            return {}
        return await self._store.known({each.key for each in records}, self.place.partition, self.place.partitions)

    async def _find_gone(self, records: Sequence[Versioned]) -> list[Change[Session]]:
        if self._seen is None:
            return []
        self._seen.update(each.key for each in records)
        if not (isinstance(self._ahead, Loading) and self._ahead.ended):
            return []
        return find_gone(await self._store.known(None, self.place.partition, self.place.partitions), self._seen, self)


def _known_after(change: Change[Session]) -> int:
    return -change.version if change.deletes() else change.version
