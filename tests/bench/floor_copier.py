"""The floor: the same records through Python and Kafka's transactions, with nothing decided and nothing stored.

One process reads `orgs.commands`, writes each record as it is to `orgs.events`, and commits offsets and records
together. What the service takes longer than this is its own doing and Postgres'.
"""

import sys
from typing import Any, Final

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from org_events.topics import Topics

_RECORDS_MAX: Final = 2_000
"""Of a transaction, as in the worker's batch."""
_BATCH_BYTES_MAX: Final = 1024 * 1024


async def _copy(
    producer: AIOKafkaProducer, records: dict[TopicPartition, list[Any]], target: str, group_id: str
) -> None:
    async with producer.transaction():
        for place, read in records.items():
            batch = producer.create_batch()
            for record in read:
                arguments: dict[str, Any] = {
                    "key": record.key,
                    "value": record.value,
                    "timestamp": None,
                    "headers": list(record.headers),
                }
                if batch.append(**arguments) is None:
                    await producer.send_batch(batch, target, partition=place.partition)
                    batch = producer.create_batch()
                    batch.append(**arguments)
            await producer.send_batch(batch, target, partition=place.partition)
        ends = {place: read[-1].offset + 1 for place, read in records.items()}
        await producer.send_offsets_to_transaction(ends, group_id)


async def main(bootstrap_servers: str, prefix: str) -> None:
    """Copy until killed."""
    topics = Topics(prefix)
    group_id = f"{prefix}floor"
    consumer = AIOKafkaConsumer(
        topics.commands,
        bootstrap_servers=bootstrap_servers,
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, transactional_id=group_id, max_batch_size=_BATCH_BYTES_MAX
    )
    async with producer, consumer:
        while True:
            records = await consumer.getmany(timeout_ms=100, max_records=_RECORDS_MAX)
            if records:
                await _copy(producer, records, topics.events, group_id)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
