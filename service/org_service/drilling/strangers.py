"""A program that writes on the relay's topics, where only the relay may."""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from org_service.drilling.drill import Ground
from org_service.errors import PreconditionError
from org_service.kafka.client import RecordMetadata
from org_service.kafka.connection import make_producer
from org_service.kafka.reader import Record, ends, read_until, reader

SOURCE = b"/elsewhere"
"""Its name, in the header that says whose a record is."""


class Written(NamedTuple):
    """Where its record came to stand."""

    partition: int
    offset: int


async def write(
    ground: Ground,
    topic: str,
    partition: int,
    record: tuple[bytes, bytes | None, Sequence[tuple[str, bytes]]],
    timestamp_ms: int | None = None,
) -> Written:
    """Write one record: key, value, headers."""
    key, value, headers = record
    producer: Any = make_producer(ground.settings.kafka)
    try:
        await producer.start()
        at: RecordMetadata = await producer.send_and_wait(topic, value, key, partition, timestamp_ms, list(headers))
        return Written(at.partition, at.offset)
    finally:
        await producer.stop()


async def find_last(ground: Ground, topic: str, org_id: UUID | str) -> Record:
    """The last record of an organization.

    Raises:
        PreconditionError: There is none.
    """
    key, found = str(org_id).encode(), None
    async with reader(ground.settings.kafka, topic, key=key) as (consumer, partitions):
        async for records in read_until(consumer, await ends(consumer, partitions)):
            found = next((each for each in reversed(records) if each.key == key), found)
    if found is None:
        raise PreconditionError(f"{topic} has no record of {org_id}")
    return found
