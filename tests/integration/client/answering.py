"""A stand-in for the service: answers commands on the results topic, each batch in one Kafka transaction."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from aiokafka.structs import RecordMetadata

from org_events import Topics
from org_events.results import RESULT_TYPE

Answer = Callable[["Received"], dict[str, Any] | None]


class Received:
    """A command as it came over the wire."""

    def __init__(self, record: ConsumerRecord) -> None:
        headers = dict(record.headers)
        self.headers = headers
        self.key = cast("bytes", record.key)
        self.value = cast("bytes", record.value)
        self.command_id = headers["ce_id"].decode()
        self.type = headers["ce_type"].decode()
        self.body: dict[str, Any] = json.loads(self.value)
        self.partition: int = record.partition
        self.offset: int = record.offset


def result(command: Received, **members: Any) -> dict[str, Any]:
    """An applied outcome, unless `members` say otherwise."""
    return {
        "command_id": command.command_id,
        "org_id": command.body["org_id"],
        "outcome": "applied",
        "code": 200,
        "version": 1,
        "organization": None,
        "position": 1,
        "problem": None,
        "final": True,
    } | members


class AnsweringService:
    """Takes commands in order and answers them; `answer` may give None to keep silent.

    A command id that was answered before gets its first answer again, as the contract promises.
    """

    def __init__(self, bootstrap_servers: str, topics: Topics, answer: Answer = result) -> None:
        self.received: list[Received] = []
        self.answer = answer
        self._topics = topics
        self.answers: dict[str, dict[str, Any]] = {}
        self._arrival = asyncio.Condition()
        self._consumer = AIOKafkaConsumer(
            topics.commands, bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest"
        )
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap_servers, transactional_id=f"{topics.prefix}answering", max_batch_size=512 * 1024
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "AnsweringService":
        await self._consumer.start()
        await self._producer.start()
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._consumer.stop()
        await self._producer.stop()

    async def arrived(self, count: int) -> None:
        """Wait until so many commands have come."""
        async with asyncio.timeout(20), self._arrival:
            await self._arrival.wait_for(lambda: len(self.received) >= count)

    async def publish(self, *results: dict[str, Any]) -> None:
        """Publish results in one transaction."""
        async with self.transaction():
            await self.send(*results)

    async def publish_on(self, partition: int, answer: dict[str, Any]) -> None:
        """Publish a result on a partition that need not be that of its key."""
        async with self.transaction():
            await self._send(answer, partition)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """What is sent within it is seen when it ends."""
        async with self._producer.transaction():
            yield

    async def send(self, *results: dict[str, Any]) -> None:
        """Write results, in a transaction; returns when the broker has them."""
        await asyncio.gather(*[await self._send(answer) for answer in results])

    async def abort(self, *results: dict[str, Any]) -> None:
        """Write results in a transaction that is aborted: nobody may see them, and they leave a gap in the offsets."""
        await self._producer.begin_transaction()
        for answer in results:
            await (await self._send(answer))
        await self._producer.abort_transaction()

    async def knows_partitions(self, topic: str, count: int) -> None:
        """Wait until the stand-in's own producer has heard that a topic has grown."""
        async with asyncio.timeout(20):
            while len(await self._producer.partitions_for(topic)) < count:
                await self._producer.client.force_metadata_update()

    async def _run(self) -> None:
        while True:
            batches = await self._consumer.getmany(timeout_ms=200, max_records=2_000)
            commands = [Received(record) for records in batches.values() for record in records]
            self.received.extend(commands)
            async with self._arrival:
                self._arrival.notify_all()
            answers = [answer for command in commands if (answer := self._answer(command)) is not None]
            if answers:
                async with self._producer.transaction():
                    for answer in answers:
                        await self._send(answer)

    def _answer(self, command: Received) -> dict[str, Any] | None:
        if command.command_id not in self.answers:
            answer = self.answer(command)
            if answer is None:
                return None
            self.answers[command.command_id] = answer
        return self.answers[command.command_id]

    async def _send(self, answer: dict[str, Any], partition: int | None = None) -> asyncio.Future[RecordMetadata]:
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", str(UUID(int=0)).encode()),
            ("ce_type", RESULT_TYPE.encode()),
            ("ce_commandid", answer["command_id"].encode()),
            ("content-type", b"application/json"),
        ]
        value = json.dumps(answer).encode()
        key = answer["org_id"].encode()
        return await self._producer.send(self._topics.results, value, key, partition, headers=headers)
