"""How far the pipeline is: commands not yet decided, outcomes not yet published.

Never by counting records: offsets of `orgs.commands` against the worker group's, journal positions against the
relay's record. Both are 0 exactly when everything sent has its outcome and every outcome is published.
"""

from typing import NamedTuple, cast

from org_service.kafka import relay_position
from org_service.kafka.client import CorruptRecordException, TopicPartition
from org_service.kafka.offsets import read_committed
from org_service.kafka.reader import ends, raise_if_sick, reader
from org_service.settings import Settings
from org_service.store import journal
from org_service.store.database import Database
from org_service.wire.position import PARTITION, Published


class Behind(NamedTuple):
    """What is still to be done."""

    commands: int
    """Offsets of `orgs.commands` that no worker has acknowledged."""
    outcomes: int
    """Journal rows that the relay has not published."""

    @property
    def idle(self) -> bool:
        """Whether everything is done."""
        return self == (0, 0)


async def behind(settings: Settings) -> Behind:
    """See how far the pipeline is behind.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: A topic does not exist.
    """
    undecided = await _undecided(settings)
    database = Database(settings.database, "reader", direct=True)
    async with database.connect() as conn:
        head = await journal.read_head(conn)
    last = await published(settings)
    return Behind(undecided, head - (0 if last is None else last.position))


async def published(settings: Settings) -> Published | None:
    """How far the relay has published; None when it has published nothing yet.

    Raises:
        KafkaError: Kafka can't be reached.
        TopicsMissingError: The topic does not exist.
        PartitionUnreadableError: It can't be read.
        StopError: The record is not a position.
    """
    topic = settings.kafka.topics.relay
    async with reader(settings.kafka, topic) as (consumer, partitions):
        now = await ends(consumer, partitions)
        at = TopicPartition(topic, PARTITION)
        try:
            return await relay_position.find(consumer, at, settings.relay.name, now[at])
        except CorruptRecordException:
            raise_if_sick(consumer)
            raise


async def _undecided(settings: Settings) -> int:
    group = settings.worker_group
    async with reader(settings.kafka, settings.kafka.topics.commands) as (consumer, partitions):
        now = await ends(consumer, partitions)
        begin = cast("dict[TopicPartition, int]", await consumer.beginning_offsets(partitions))
    committed = await read_committed(settings.kafka, group, partitions, or_none=True)
    # -1 stands for a partition without a commit; one whose records have expired counts from its beginning.
    return sum(max(0, end - max(begin[at], committed[at].offset)) for at, end in now.items())
