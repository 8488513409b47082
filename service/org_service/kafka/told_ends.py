"""What the relay's last position record tells of the partitions, against what they hold."""

from collections.abc import Collection, Mapping
from functools import partial
from uuid import UUID

from org_events.topics import Topics
from org_service.kafka.client import TopicPartition
from org_service.kafka.logs import Bounds
from org_service.kafka.producer import Producer
from org_service.kafka.traces import is_of_relay
from org_service.wire.position import Published, TopicEnds


def find_recreated(last: Published | None, ids: Mapping[str, UUID]) -> set[str]:
    """Which topics aren't those that the record tells of."""
    told: Mapping[str, TopicEnds] = {} if last is None or last.ends is None else last.ends
    return {topic for topic, each in told.items() if topic in ids and each.topic_id != ids[topic]}


def read_ends(last: Published | None, ids: Mapping[str, UUID]) -> dict[TopicPartition, int]:
    """The offset after the relay's last record, of the partitions of which the record tells it."""
    told: Mapping[str, TopicEnds] = {} if last is None or last.ends is None else last.ends
    return {
        TopicPartition(topic, number): end
        for topic, each in told.items()
        if topic in ids and each.topic_id == ids[topic]
        for number, end in enumerate(each.ends)
        if end is not None
    }


def read_looked(last: Published | None, ends: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """Up to where what others wrote is known, of those that the record names; of the others it is their end."""
    told: Mapping[str, Mapping[int, int]] = {} if last is None or last.looked is None else last.looked
    found = {TopicPartition(topic, number): offset for topic, each in told.items() for number, offset in each.items()}
    return {at: offset for at, offset in found.items() if at in ends}


async def find_lost(
    producer: Producer, topics: Topics, ends: Mapping[TopicPartition, int], bounds: Mapping[TopicPartition, Bounds]
) -> set[TopicPartition]:
    """Which partitions lost the end that the relay's last transaction left there.

    Where retention has taken it, nothing is lost.

    Raises:
        UnknownFateError: Nobody knows; close the producer.
    """
    reachable = {at: end for at, end in ends.items() if bounds[at].begin < end < bounds[at].end}
    broken = await producer.find_broken(reachable, partial(is_of_relay, topics))
    return broken | {at for at, end in ends.items() if bounds[at].end <= end}
