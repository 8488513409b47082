"""For tests of rehearsals: commands that a worker decided, and all that a rehearsal must leave as it is."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from org_service.domain.policy import Policy
from org_service.kafka.client import AIOKafkaConsumer, TopicPartition
from org_service.operate.commands import CommandSelection
from org_service.operate.rehearsing.rehearsal import Rehearsal
from org_service.operate.rehearsing.report import Difference, Report
from org_service.settings import Settings
from tests.integration.worker.publishing import committed
from tests.integration.worker.running import running
from tests.support.database import connected
from tests.support.sending import Publisher, Sending
from tests.support.waiting import until


async def publish(settings: Settings, sendings: Iterable[Sending]) -> int:
    """Send commands; returns how many."""
    publisher = Publisher(settings.kafka.bootstrap_servers, settings.kafka.topics.commands)

    def send() -> int:
        for sending in sendings:
            publisher.send(sending)
        publisher.close()
        return publisher.sent

    return await asyncio.to_thread(send)


async def decided(settings: Settings, sendings: Iterable[Sending], **options: Any) -> None:
    """Send commands and let a worker decide them."""
    before = await end_of(settings)
    sent = await publish(settings, sendings)
    async with running(settings, **options):
        await until(lambda: committed(settings), before + sent)


async def end_of(settings: Settings) -> int:
    """How many records the topic of commands has."""
    topic = settings.kafka.topics.commands
    return sum(end for (each, _), end in (await ends(settings)).items() if each == topic)


async def ends(settings: Settings) -> dict[tuple[str, int], int]:
    """Of all partitions of commands, and of what a worker or a relay writes."""
    topics, partitions = settings.kafka.topics, range(settings.kafka.partitions)
    written = (topics.commands, topics.results, topics.events, topics.state)
    at = [TopicPartition(topics.relay, 0), *(TopicPartition(each, number) for each in written for number in partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers) as consumer:
        return {(each.topic, each.partition): end for each, end in (await consumer.end_offsets(at)).items()}


async def rehearse(
    settings: Settings, *, policy: Policy | None = None, decider: Any = None, reader: Any = None, **selection: Any
) -> tuple[Report, Sequence[Difference]]:
    """A rehearsal to its end."""
    found: list[Difference] = []
    rehearsal = Rehearsal(settings, CommandSelection(**selection), policy=policy, decider=decider, reader=reader)
    report = await rehearsal.run(found.append)
    assert report.differences == len(found)
    return report, found


async def checksums(settings: Settings) -> dict[str, str]:
    """Of all rows of all tables, and of all sequences."""
    async with connected(settings) as connection:
        names = await connection.fetch(
            "SELECT relname, relkind FROM pg_class WHERE relkind IN ('r', 'S') AND relpersistence = 'p' "
            "AND relnamespace = 'public'::regnamespace"
        )
        rows = (
            "SELECT md5(coalesce(string_agg(each::text, ' ' ORDER BY each::text), '')) FROM (SELECT * FROM {}) AS each"
        )
        return {name: str(await connection.fetchval(rows.format(f'"{name}"'))) for name, _ in names}


async def temporary_tables(settings: Settings) -> int:
    """How many there are, of all sessions."""
    async with connected(settings) as connection:
        found = "SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'"
        (row,) = await connection.fetch(found)
        return int(row[0])
