"""The partitions that this process has, each opened where its store says and closed when it goes to somebody else."""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Generic, NamedTuple

from org_events.subscribing.changes import Session
from org_events.subscribing.errors import Superseded
from org_events.subscribing.lane import Lane, Place
from org_events.subscribing.lives import (
    AtPosition,
    AtTime,
    Following,
    Life,
    Loading,
    Log,
    Opening,
    Start,
    decide_opening,
    find_parent,
    goes_on,
)
from org_events.subscribing.sources import Source
from org_events.subscribing.stores import Claim, Mark, Store

_log = logging.getLogger(__name__)

LOOK_S: Final = 5.0
"""Between two looks whether topics are still the same, and whether they grew."""
RETRY_S: Final = 1.0
"""Before a partition is opened again, and between two offsets that are saved where nothing happens."""


class LoadProgress(NamedTuple):
    """How far the load of a partition is, in offsets of `orgs.state`."""

    partition: int
    low: int
    position: int
    end: int


class Lanes(Generic[Session]):
    """See the module.

    Args:
        source: Kafka.
        store: What is known.
        start: Where to begin what the store doesn't know.
        on_progress: Called after each step of a load.
    """

    def __init__(
        self,
        source: Source,
        store: Store[Session],
        start: Start,
        on_progress: Callable[[LoadProgress], object] | None = None,
    ) -> None:
        self._source = source
        self._store = store
        self._start: Start = start
        self._on_progress = on_progress
        self._lanes: dict[int, Lane[Session]] = {}
        self._waiting: dict[int, int | None] = {}
        """New partitions, and where their parents ended when they had a record first."""
        self._generation = 0
        self._not_before: dict[int, float] = {}
        self._look_at = 0.0
        self._saved_at: dict[int, float] = {}

    def get(self, partition: int) -> Lane[Session] | None:
        """A partition that is open."""
        lane = self._lanes.get(partition)
        return None if lane is None or lane.lost else lane

    def find(self, key: bytes) -> Lane[Session] | None:
        """Where something of an organization is parked."""
        return next((lane for lane in self._lanes.values() if key in lane.parked and not lane.lost), None)

    @property
    def parked(self) -> dict[bytes, int]:
        """How many changes wait, by organization."""
        lanes = self._lanes.values()
        return {key: len(waiting) for lane in lanes for key, waiting in lane.parked.items()}

    @property
    def are_loaded(self) -> bool:
        """Whether all that are ours are followed."""
        assigned = self._source.assigned
        return assigned is not None and all(each in self._waiting or self._handled(each) >= 0 for each in assigned)

    def have_handled(self, ends: Mapping[int, int]) -> bool:
        """Whether those that are ours were handled up to offsets."""
        assigned = self._source.assigned or ()
        return all(self._handled(each) >= end for each, end in ends.items() if each in assigned)

    async def tend(self) -> None:
        """Open what is new, close what is gone, look whether all is as it was.

        Raises:
            SourceUnavailable: Kafka can't say; try again.
        """
        for number in [number for number, lane in self._lanes.items() if lane.lost]:
            del self._lanes[number]
        now = time.monotonic()
        if self._source.take_doubt() or now >= self._look_at:
            self._look_at = now + LOOK_S
            await self._look()
        assigned: Collection[int] = self._source.assigned or ()
        due = [each for each in assigned if each not in self._lanes and self._not_before.get(each, 0.0) <= now]
        if due:
            self._not_before.update(dict.fromkeys(due, now + RETRY_S))
            await self._open(sorted(due))

    async def finish(self, lane: Lane[Session], *, changed: bool) -> None:
        """All that was handed out of a partition is handled."""
        number, now, was = lane.place.partition, time.monotonic(), lane.life
        idle = not changed and now < self._saved_at.get(number, 0.0) + RETRY_S
        try:
            await lane.finish(save=not idle)
        except Superseded:
            _log.info("partition %d is read by another process now", number)
            return
        if not idle:
            self._saved_at[number] = now
        if isinstance(was, Loading):
            self._note_progress(number, lane.life, was)

    async def close(self) -> None:
        """Save what was handled, and give all of them up."""
        self._generation += 1
        lanes = list(self._lanes.values())
        self._lanes.clear()
        self._waiting.clear()
        self._not_before.clear()
        for lane in lanes:
            try:
                await lane.give_up()
            except Exception:  # noqa: BLE001 - whatever a store raises; a rebalance goes on
                _log.exception("what was handled of a partition could not be saved: it comes again")

    def _handled(self, partition: int) -> int:
        lane = self.get(partition)
        return -1 if lane is None else lane.handled

    def _note_progress(self, number: int, life: Life, was: Loading) -> None:
        position = life.position if isinstance(life, Loading) else was.end
        if isinstance(life, Following):
            self._source.follow(number, life.position)
        if self._on_progress is not None:
            self._on_progress(LoadProgress(number, was.low, position, was.end))

    async def _look(self) -> None:
        await self._source.refresh()
        following = {n: lane for n, lane in self._lanes.items() if isinstance(lane.life, Following)}
        logs = await self._source.look({number: lane.mark for number, lane in following.items()}) if following else {}
        for number, log in logs.items():
            if not goes_on(following[number].mark, log):
                _log.warning("partition %d of the events no longer has what follows: loading it again", number)
                following[number].lost = True
                self._lanes.pop(number, None)
        loading = {n: lane.life for n, lane in self._lanes.items() if isinstance(lane.life, Loading)}
        ends = await self._source.look_at_states(list(loading)) if loading else {}
        for number, (low, high) in ends.items():
            if not low <= max(loading[number].position, low) <= high:
                _log.warning("partition %d of the state is another one now: loading it again", number)
                self._lanes.pop(number, None)
        await self._source.tell({number: lane.handled for number, lane in self._lanes.items() if lane.handled >= 0})

    async def _open(self, numbers: Sequence[int]) -> None:
        generation, partitions = self._generation, self._source.partitions
        claims = {number: await self._store.claim(number, partitions) for number in numbers}
        logs = await self._source.look({number: claim.marks.get(number) for number, claim in claims.items()})
        opened: dict[int, tuple[Mark, Life]] = {}
        loads: list[int] = []
        for number, log in logs.items():
            opening = decide_opening(number, claims[number].marks, log, self._start)
            if opening is Opening.LOAD:
                loads.append(number)
            elif (begun := await self._begin(opening, number, claims[number], log)) is not None:
                opened[number] = begun
        # Behind the ends of the events, which `look` has noted: see `lives`.
        states = await self._source.look_at_states(loads) if loads else {}
        for number, (low, high) in states.items():
            stable = logs[number].stable
            mark = self._mark(number, claims[number], logs[number], stable)._replace(loading=True, whole=False)
            opened[number] = mark, Loading(low, low, high, stable)
        if generation == self._generation:
            for number, (mark, life) in opened.items():
                self._begin_lane(number, claims[number], mark, life)

    def _begin_lane(self, number: int, claim: Claim, mark: Mark, life: Life) -> None:
        place = Place(number, self._source.partitions, self._source.settled_partitions)
        self._lanes[number] = Lane(place, self._store, claim, mark, life)
        self._waiting.pop(number, None)
        if isinstance(life, Loading):
            self._source.load(number, life.position)
        else:
            self._source.follow(number, life.position)

    async def _begin(self, opening: Opening, number: int, claim: Claim, log: Log) -> tuple[Mark, Life] | None:
        if opening is Opening.RESUME:
            mark = claim.marks[number]
            return mark, Following(mark.offset)
        if opening is Opening.WAIT:
            return await self._begin_behind_parent(number, claim, log)
        offset = await self._find_start(number, log)
        return self._mark(number, claim, log, offset), Following(offset)

    async def _begin_behind_parent(self, number: int, claim: Claim, log: Log) -> tuple[Mark, Life] | None:
        """A partition that is new is read when its parent was read to where it ended when this one had a record."""
        parent = find_parent(number, claim.marks)
        until = self._waiting.setdefault(number, None)
        if until is None and parent is not None and log.stable > log.low:
            until = self._waiting[number] = (await self._source.find_ends([parent]))[parent]
        if parent is None or until is None or claim.marks[parent].offset < until:
            return None
        mark = self._mark(number, claim, log, log.low)
        return mark._replace(whole=claim.marks[parent].whole), Following(log.low)

    async def _find_start(self, number: int, log: Log) -> int:
        match self._start:
            case AtPosition(position):
                return await self._source.find_position(number, position, log)
            case AtTime(moment):
                found = await self._source.find_time(number, moment)
                return log.stable if found is None else found
            case "now":
                return log.stable
            case _:
                return log.low

    def _mark(self, number: int, claim: Claim, log: Log, offset: int) -> Mark:
        before = claim.marks.get(number)
        born = self._source.partitions if before is None else before.partitions
        return Mark(log.topic_id, offset, loading=False, whole=False, partitions=born)
