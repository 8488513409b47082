"""Whether a reference topic still continues where the tables have it.

An offset is a number; what it stood for may be gone. The topic may be another one of that name, which its id tells. Or
its log lost its end in an outage and was filled past the progress since: then what is before the progress is not what
was applied, and no offset tells. But a log loses its end only where its partition gets another leader, and it knows
where each leader's epoch ended (`kafka/epochs.py`). So the progress carries the epoch that it was read in, and where
another one has begun, the end of that epoch must not lie before it.

The epoch is the one of before the first poll; a batch that comes while a later one is known is not applied, and the
position is found again. Brokers hear of an election one after the other: a batch that was read from a new leader and
is applied while the broker that we ask knows nothing of it is read again, as if it were lost.
"""

from collections.abc import Mapping

from org_events.kafka.epochs import fetch_epoch_ends
from org_events.kafka.topic_ids import Topic, describe
from org_service.kafka.client import AIOKafkaConsumer, TopicPartition
from org_service.store.reference_progress import Progress, ReferencePartition

Positions = Mapping[ReferencePartition, Progress]
"""How far partitions are applied, of which topic and in which epoch."""


async def find_cut(
    consumer: AIOKafkaConsumer, topics: Mapping[str, Topic], progress: Positions
) -> set[ReferencePartition]:
    """Which partitions of these topics lost what was applied of them.

    Raises:
        KafkaError: Nobody knows: a leader doesn't answer.
    """
    ended = {
        TopicPartition(*at): each.leader_epoch
        for at, each in progress.items()
        if each.leader_epoch is not None and _is_over(each.leader_epoch, each, topics.get(at.topic), at.partition)
    }
    if not ended:
        return set()
    leaders = {at: topics[at.topic].leaders[at.partition] for at in ended}
    ends = await fetch_epoch_ends(consumer, ended, leaders)
    places = {ReferencePartition(*at): max(end, 0) for at, end in ends.items()}  # unknown: all is read again
    return {at for at, end in places.items() if end < progress[at].next_offset}


def _is_over(epoch: int, progress: Progress, topic: Topic | None, partition: int) -> bool:
    return topic is not None and progress.topic_id == topic.topic_id and epoch < topic.epochs.get(partition, epoch)


async def is_there(consumer: AIOKafkaConsumer, found: Positions) -> bool:
    """Whether partitions are still those, under the same leaders, of which a position was found.

    Raises:
        KafkaError: Nobody knows.
    """
    topics = await describe(consumer, sorted({at.topic for at in found}))
    return all(
        topics[at.topic].topic_id == each.topic_id and topics[at.topic].epochs[at.partition] <= (each.leader_epoch or 0)
        for at, each in found.items()
    )


def may_continue(progress: Positions, found: Positions, starts: Mapping[ReferencePartition, int]) -> bool:
    """Whether partitions are as we found them, and applied to where we continue at least."""
    return all(
        at in progress
        and progress[at].topic_id == found[at].topic_id
        and progress[at].leader_epoch == found[at].leader_epoch
        and progress[at].next_offset >= start
        for at, start in starts.items()
    )
