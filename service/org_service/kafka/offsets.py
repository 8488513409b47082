"""What a consumer group has committed."""

from collections.abc import Collection, Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import CoordinatorNotAvailableError
from aiokafka.structs import OffsetAndMetadata

from org_service.kafka.connection import admin
from org_service.settings import KafkaSettings

_NOTHING: Final = OffsetAndMetadata(-1, "")


async def read_committed(
    kafka: KafkaSettings, group: str, partitions: Collection[TopicPartition], *, or_none: bool = False
) -> Mapping[TopicPartition, OffsetAndMetadata]:
    """Read what a group has committed in partitions, with its metadata; offset -1 where it has committed nothing.

    Args:
        kafka: Where.
        group: Its id.
        partitions: All of them are answered for.
        or_none: Also take -1 of partitions that the coordinator does not know, or does not know yet. For a look, not
            for whoever continues from there.

    Raises:
        CoordinatorNotAvailableError: The group's coordinator does not know them all (yet).
        KafkaError: Kafka can't be reached.
    """
    async with admin(kafka) as client:
        committed = await client.list_consumer_group_offsets(group, partitions=list(partitions))
    # A coordinator that is still loading answers for no partition, and the client says nothing of its error.
    missing = set(partitions) - committed.keys()
    if missing and not or_none:
        raise CoordinatorNotAvailableError(f"the group's coordinator returns no offset for {len(missing)} partitions")
    return {**committed, **dict.fromkeys(missing, _NOTHING)}
