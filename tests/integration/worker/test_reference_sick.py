"""Reference topics that can't be read: what is behind waits and counts as not applied, everything else goes on."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from itertools import count
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import REGISTRY

from org_events.kafka import sick
from org_events.reference import Partnership, Reference, Staff
from org_local.issuer import Issuer
from org_local.segments import Batch
from org_local.stack import Stack
from org_service.apply import reconcile
from org_service.errors import RetryError
from org_service.settings import AuthSettings, Settings
from tests.integration.worker.running import running
from tests.support import log_faults, raw_batches
from tests.support.reference_feed import ACME, Feed, member, reading
from tests.support.waiting import until

pytestmark = pytest.mark.integration

FACTS = "SELECT (SELECT count(*) FROM membership) + (SELECT count(*) FROM partnership) + (SELECT count(*) FROM staff)"
ROUNDS, EACH = 6, 12


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sick, "RETRY_S", 0.2)
    monkeypatch.setattr(reconcile, "CONFIRM_S", 0.05)


class Publishers:
    """Other services, which publish facts of each kind, in batches."""

    def __init__(self, settings: Settings) -> None:
        self._feed = Feed(settings)
        self._numbers = count(1)
        self.topics = [self._feed.topics.memberships, self._feed.topics.partnerships, self._feed.topics.staff]

    async def publish(self, rounds: int) -> int:
        """So many batches a partition; returns the number of facts."""
        for _ in range(rounds):
            numbers = [next(self._numbers) for _ in range(EACH)]
            facts: list[list[Reference]] = [
                [member(f"user-{number}") for number in numbers],
                [Partnership(partner_org_id=UUID(int=number), org_id=ACME) for number in numbers],
                [Staff(user_id=f"user-{number}") for number in numbers],
            ]
            for topic, those in zip(self.topics, facts, strict=True):
                await self._feed.raw(topic, [(each.key(), each.to_body()) for each in those])
        return rounds * EACH * len(self.topics)


async def damage(stack: Stack, topic: str, partition: int) -> Batch:
    """Flip a bit in the middle of a partition, or flip it back."""
    end = log_faults.ends(stack.bootstrap_servers, topic, [partition])[partition]
    return await asyncio.to_thread(log_faults.flip_byte, stack, topic, partition, end // 2, mask=1)


async def progress(database: asyncpg.Connection) -> dict[tuple[str, int], int]:
    rows = await database.fetch("SELECT topic, partition, next_offset FROM reference_progress")
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


def ends(settings: Settings, topics: list[str]) -> dict[tuple[str, int], int]:
    servers = settings.kafka.bootstrap_servers
    return {
        (topic, partition): end
        for topic in topics
        for partition, end in log_faults.ends(servers, topic, range(settings.kafka.partitions)).items()
    }


async def unconfirmed(database: asyncpg.Connection) -> set[tuple[str, int]]:
    """The partitions that nobody was seen to have read whole, since `forget`."""
    rows = await database.fetch(
        "SELECT topic, partition FROM reference_progress WHERE confirmed_at < now() - interval '30 minutes'"
    )
    return {(row["topic"], row["partition"]) for row in rows}


async def forget(database: asyncpg.Connection) -> None:
    """Let every partition have been read whole an hour ago."""
    await database.execute("UPDATE reference_progress SET confirmed_at = now() - interval '1 hour'")


async def test_progress_stops_at_an_unreadable_batch_and_all_other_partitions_continue(
    settings: Settings, stack: Stack, database: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """1,270 of 2,927 memberships were lost, and the progress was behind them."""
    publishers = Publishers(settings)
    sent = await publishers.publish(ROUNDS)
    at = dict(zip(publishers.topics, range(3), strict=True))
    bad = {(topic, partition): await damage(stack, topic, partition) for topic, partition in at.items()}

    def wanted() -> Mapping[tuple[str, int], int]:
        return ends(settings, publishers.topics) | {place: batch.first for place, batch in bad.items()}

    def behind() -> int:
        return sum(ends(settings, publishers.topics).values()) - sum(wanted().values())

    async with running(settings) as worker:
        await until(lambda: database.fetchval(FACTS), sent - behind())
        sent += await publishers.publish(2)
        await until(lambda: progress(database), wanted())
        assert await database.fetchval(FACTS) == sent - behind()
        await forget(database)
        await until(lambda: unconfirmed(database), bad.keys())
        with pytest.raises(RetryError, match="cannot be read") as told:
            await worker.checks()["reference"]()
        for (topic, partition), batch in bad.items():
            shown = {"topic": topic, "partition": str(partition)}
            assert REGISTRY.get_sample_value("orgs_consumer_partition_stuck", shown) == 1
            assert f"{topic}, partition {partition}: unreadable from offset {batch.first}: Corrupt" in str(told.value)
            assert caplog.text.count(f"{topic}, partition {partition} cannot be read from offset {batch.first} on") == 1
        for (topic, partition), batch in bad.items():
            await asyncio.to_thread(log_faults.flip_byte, stack, topic, partition, batch.first, mask=1)
        await until(lambda: database.fetchval(FACTS), sent)
        await until(lambda: progress(database), ends(settings, publishers.topics))
        await until(lambda: unconfirmed(database), set())
        assert await worker.checks()["reference"]() == "9 partitions"


async def test_commands_wait_for_unreadable_reference_data_and_it_is_reported(
    settings: Settings, stack: Stack, database: asyncpg.Connection, tmp_path: Path
) -> None:
    """A worker that starts then judges nothing by half of what is known."""
    issuer = Issuer.open(tmp_path)
    auth = AuthSettings(commands="tokens", issuer=issuer.name, jwks_file=str(issuer.jwks_file))
    publishers = Publishers(settings)
    sent = await publishers.publish(2)
    topic = publishers.topics[2]
    bad = await damage(stack, topic, 1)
    async with running(settings.model_copy(update={"auth": auth})) as worker:

        async def readyz(check: str) -> str:
            try:
                return await worker.checks()[check]()
            except RetryError as error:
                return str(error)

        said = f"cannot be read: {topic}, partition 1: unreadable from offset {bad.first}: CorruptRecordException: "

        async def says_so() -> bool:
            return (await readyz("reference")).startswith(said)

        await until(says_so)
        assert await readyz("consumer") == "commands wait until the reference data are loaded"
        await asyncio.to_thread(log_faults.flip_byte, stack, topic, 1, bad.first, mask=1)
        await until(lambda: readyz("consumer"), "3 partitions")
        assert await database.fetchval(FACTS) == sent


async def test_nothing_is_deleted_after_a_long_absence_while_a_partition_is_unreadable(
    settings: Settings, stack: Stack, database: asyncpg.Connection
) -> None:
    publishers = Publishers(settings)
    sent = await publishers.publish(2)
    async with reading(settings):
        await until(lambda: database.fetchval(FACTS), sent)
    topic = publishers.topics[2]
    bad = await damage(stack, topic, 1)
    await database.execute("INSERT INTO staff SELECT 'revoked-' || number FROM generate_series(1, 10) AS number")
    await database.execute("UPDATE reference_progress SET confirmed_at = now() - $1::interval", timedelta(days=400))

    async def outage() -> str | None:
        return applier.outage

    async with reading(settings) as applier:
        await until(outage, "Kafka returned an unexpected response: CorruptRecordException")
        assert await database.fetchval(FACTS) == sent + 10
        await asyncio.to_thread(log_faults.flip_byte, stack, topic, 1, bad.first, mask=1)
        await until(lambda: database.fetchval(FACTS), sent)


async def test_nothing_is_deleted_after_a_long_absence_while_a_batch_is_unreadable(
    settings: Settings, database: asyncpg.Connection
) -> None:
    """It is stepped over, but nobody knows whose rows it stands for."""
    publishers = Publishers(settings)
    sent, topic = await publishers.publish(1), publishers.topics[2]
    assert await raw_batches.produce(settings.kafka.bootstrap_servers, topic, 1, raw_batches.unreadable()) == 0
    async with reading(settings):
        await until(lambda: database.fetchval(FACTS), sent)
        await until(lambda: database.fetchval("SELECT count(*) FROM parked"), 1)
    await database.execute("INSERT INTO staff SELECT 'revoked-' || number FROM generate_series(1, 10) AS number")
    await database.execute("UPDATE reference_progress SET confirmed_at = now() - $1::interval", timedelta(days=400))

    async def outage() -> str | None:
        return applier.outage

    async with reading(settings) as applier:
        await until(outage, "Kafka returned an unexpected response: CorruptRecordException")
        assert await database.fetchval(FACTS) == sent + 10
