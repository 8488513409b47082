"""Answers commands for `tests.bench.client`; with a number of seconds it publishes results of nobody, all it can.

It does as little as it can, in batches, so that it is not what is measured.
"""

import asyncio
import sys
import time
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from org_events import Topics

_RESULT: Final = (
    b'{"command_id":"%b","org_id":"%b","outcome":"applied","code":200,"version":1,"organization":{"id":"%b","name":'
    b'"Acme","domain":"acme.example","primary_address":null,"created_at":"2026-01-01T00:00:00Z","updated_at":'
    b'"2026-01-01T00:00:00Z","deactivated":false,"deactivated_at":null,"version":1},"position":1,"problem":null,'
    b'"final":true}'
)
_HEADERS: Final = [("ce_specversion", b"1.0"), ("ce_type", b"org.result"), ("content-type", b"application/json")]
_BATCH_BYTES: Final = 512 * 1024


def _encode(key: bytes, command_id: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    return _RESULT % (command_id, key, key), [*_HEADERS, ("ce_commandid", command_id)]


async def _send(producer: AIOKafkaProducer, topic: str, partition: int, records: list[tuple[bytes, bytes]]) -> None:
    batch = producer.create_batch()
    for key, command_id in records:
        value, headers = _encode(key, command_id)
        if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
            batch.close()
            await producer.send_batch(batch, topic, partition=partition)
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None, headers=headers)
    batch.close()
    await producer.send_batch(batch, topic, partition=partition)


async def _answer(bootstrap_servers: str, topics: Topics) -> None:
    consumer = AIOKafkaConsumer(topics.commands, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, transactional_id="bench-client", max_batch_size=_BATCH_BYTES
    )
    async with consumer, producer:
        print("ready", flush=True)
        while True:
            polled: dict[Any, list[Any]] = await consumer.getmany(timeout_ms=200, max_records=2_000)
            if not polled:
                continue
            async with producer.transaction():
                for at, records in polled.items():
                    answers = [(record.key, dict(record.headers)["ce_id"]) for record in records]
                    await _send(producer, topics.results, at.partition, answers)


async def _flood(bootstrap_servers: str, topics: Topics, seconds: float) -> None:
    key, sent, end = b"0192d3a0-0000-7000-8000-000000000001", 0, time.monotonic() + seconds
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, max_batch_size=_BATCH_BYTES) as producer:
        while time.monotonic() < end:
            for partition in range(12):
                await _send(producer, topics.results, partition, [(key, key)] * 200)
                sent += 200
        await producer.flush()
    print(f"results of others: {sent / seconds:,.0f}/s", flush=True)


if __name__ == "__main__":
    _given = Topics(sys.argv[2])
    if len(sys.argv) > 3:
        asyncio.run(_flood(sys.argv[1], _given, float(sys.argv[3])))
    else:
        asyncio.run(_answer(sys.argv[1], _given))
