"""What consumer groups have committed."""

from collections.abc import Collection, Mapping
from typing import Final

from aiokafka import TopicPartition
from aiokafka.errors import CoordinatorNotAvailableError, GroupAuthorizationFailedError
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


async def read_groups(
    kafka: KafkaSettings, partitions: Collection[TopicPartition]
) -> Mapping[str, Mapping[TopicPartition, int]]:
    """Read what every consumer group has committed in partitions; groups that have committed nothing are left out.

    What a group has that our login may not see is left out, too.

    Raises:
        KafkaError: Kafka can't be reached.
    """
    wanted = set(partitions)
    found: dict[str, dict[TopicPartition, int]] = {}
    async with admin(kafka) as client:
        listed = await client.list_consumer_groups()
        for group in sorted({str(each[0]) for each in listed}):
            try:
                committed = await client.list_consumer_group_offsets(group)
            except GroupAuthorizationFailedError:
                continue
            offsets = {at: has.offset for at, has in committed.items() if at in wanted and has.offset >= 0}
            if offsets:
                found[group] = offsets
    return found
