"""How far consumer groups are behind on our topics, and how long what they have not read is still there.

**Time to loss** is when retention may take the first record that a group has not read: its time plus `retention.ms`.
Brokers take whole segments, so it is later rather than earlier. A group that was away for longer has lost records.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple, cast

from org_events.kafka.topic_ids import describe_present
from org_service.kafka.client import TopicPartition
from org_service.kafka.offsets import Group, describe_groups, read_groups
from org_service.kafka.reader import Record, ends, groupless_consumer
from org_service.kafka.topics import fetch_configs
from org_service.kafka.unread import FETCH_OPTIONS, find_first
from org_service.settings import KafkaSettings

_BY_TIME: Final = "delete"
_NOTHING: Final = -1


class Standing(NamedTuple):
    """Where a group stands in a partition."""

    group: str
    topic: str
    partition: int
    committed: int | None
    """None where it has committed in others of the topic, and nothing here: counted from the beginning."""
    begin: int
    """The first offset that is still there."""
    end: int
    lag: int
    """Offsets that it has yet to read, marks of transactions included; 0 where there is no record among them."""
    lag_s: float
    """Age of the first record that it has not read; 0 where it has read all."""
    lost: int
    """Offsets that were gone before it read them."""
    loss_s: float | None
    """Until retention may take the first record that it has not read; None where it has read all, or nothing is taken
    by age."""


class GroupStanding(NamedTuple):
    """Where a group stands on our topics, worst partition first."""

    name: str
    group: Group | None
    """None where our login may not see it."""
    partitions: Sequence[Standing]

    @property
    def lag(self) -> int:
        """Of all partitions."""
        return sum(each.lag for each in self.partitions)

    @property
    def lag_s(self) -> float:
        """Of the partition that is furthest behind."""
        return max(each.lag_s for each in self.partitions)

    @property
    def lost(self) -> int:
        """Of all partitions."""
        return sum(each.lost for each in self.partitions)

    @property
    def loss_s(self) -> float | None:
        """Of the partition that loses a record first."""
        return min((each.loss_s for each in self.partitions if each.loss_s is not None), default=None)


class Look(NamedTuple):
    """What Kafka says of our topics and of who reads them."""

    groups: Sequence[GroupStanding]
    """The one that loses a record first comes first, then by lag."""
    ends: Mapping[TopicPartition, int]
    missing: Sequence[str]
    """Topics that are not there."""
    retention_ms: Mapping[str, int | None]
    """Of each topic whose settings we may read; None where nothing is taken by age."""

    def loss_of(self, topic: str, sent_at: datetime, now_s: float | None = None) -> float | None:
        """Seconds until retention may take a record of a time; None where it takes nothing by age."""
        kept_ms = self.retention_ms.get(topic)
        if kept_ms is None:
            return None
        return sent_at.timestamp() + kept_ms / 1000 - (time.time() if now_s is None else now_s)


async def look(kafka: KafkaSettings) -> Look:
    """See where every group stands on our topics.

    Costs a request or two for each group and one small fetch for each partition in which one is behind.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    names = sorted(spec.name for spec in kafka.topics.specs())
    async with groupless_consumer(kafka, **FETCH_OPTIONS) as consumer:
        there = await describe_present(consumer, names)
        partitions = [TopicPartition(name, number) for name, each in there.items() for number in sorted(each.leaders)]
        now = await ends(consumer, partitions)
        begins = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(partitions))
        committed = {
            group: _filled(offsets, begins) for group, offsets in (await read_groups(kafka, partitions)).items()
        }
        states = await describe_groups(kafka, committed)
        retention_ms = {name: _retention(config) for name, config in (await fetch_configs(kafka, list(there))).items()}
        first: dict[tuple[TopicPartition, int], Record] = {}
        for offsets in _rounds(committed):
            read = await find_first(consumer, {at: max(each, begins[at]) for at, each in offsets.items()}, now)
            first |= {(at, offsets[at]): record for at, record in read.items()}
    found: list[GroupStanding] = []
    for group, offsets in committed.items():
        standings = [
            _stand(
                group,
                at,
                offset,
                begin=begins[at],
                end=now[at],
                first=first.get((at, offset)),
                retention_ms=retention_ms.get(at.topic),
            )
            for at, offset in offsets.items()
        ]
        found.append(GroupStanding(group, states.get(group), sorted(standings, key=_by_loss)))
    found.sort(key=_by_loss)
    return Look(found, now, [name for name in names if name not in there], retention_ms)


def _filled(offsets: Mapping[TopicPartition, int], every: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """With the partitions of the same topics in which nothing is committed."""
    topics = {at.topic for at in offsets}
    return {at: offsets.get(at, _NOTHING) for at in every if at.topic in topics}


def _rounds(committed: Mapping[str, Mapping[TopicPartition, int]]) -> list[dict[TopicPartition, int]]:
    """Each offset that is asked for once, with one for each partition at a time."""
    rounds: list[dict[TopicPartition, int]] = []
    for at, offset in sorted({pair for offsets in committed.values() for pair in offsets.items()}):
        free = next((each for each in rounds if at not in each), None)
        if free is None:
            rounds.append({at: offset})
        else:
            free[at] = offset
    return rounds


def _stand(
    group: str,
    at: TopicPartition,
    committed: int,
    *,
    begin: int,
    end: int,
    first: Record | None,
    retention_ms: int | None,
) -> Standing:
    now_s = time.time()
    lag_s = loss_s = None
    if first is not None:
        lag_s = max(0.0, now_s - first.timestamp / 1000)
        loss_s = None if retention_ms is None else (first.timestamp + retention_ms) / 1000 - now_s
    lag = end - max(committed, begin) if first is not None else 0
    nothing = committed == _NOTHING
    lost = 0 if nothing else max(0, begin - committed)
    return Standing(
        group, at.topic, at.partition, None if nothing else committed, begin, end, lag, lag_s or 0.0, lost, loss_s
    )


def _by_loss(each: Standing | GroupStanding) -> tuple[float, int]:
    return (float("inf") if each.loss_s is None else each.loss_s), -each.lag


def _retention(config: Mapping[str, str]) -> int | None:
    """After how long records go by their age; None where they don't."""
    kept_ms = int(config["retention.ms"])
    return kept_ms if _BY_TIME in config["cleanup.policy"].split(",") and kept_ms >= 0 else None
