"""A history to verify, what somebody does to it, and all that a repair could touch."""

from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer

from org_service.operate import runs
from org_service.operate.verifying.repair import Repair
from org_service.operate.verifying.report import Report
from org_service.operate.verifying.verification import Asked, verify
from org_service.settings import Settings
from tests.support.database import connected
from tests.support.idle import wait_until_idle
from tests.support.operating import Service
from tests.support.random_commands import RandomCommands
from tests.support.reference_feed import Feed, member
from tests.support.rehearsing import publish
from tests.support.topics import read_topic
from tests.support.waiting import until

COMMANDS: Final = 400
ORGANIZATIONS: Final = 30
USERS: Final = ("alice", "bob", "carol")
LIVING: Final = "SELECT id, version FROM organization WHERE deleted_at IS NULL ORDER BY id OFFSET {} LIMIT 1"
DELETED: Final = "SELECT id, version FROM organization WHERE deleted_at IS NOT NULL ORDER BY id OFFSET {} LIMIT 1"


async def make_history(settings: Settings, service: Service) -> None:
    """Let a worker and a relay decide and publish some hundred commands, and some memberships."""
    service.start("worker", "relay")
    await publish(settings, RandomCommands(5, ORGANIZATIONS).commands(COMMANDS))
    feed = Feed(settings)
    await feed.members(*(member(user) for user in USERS))
    await wait_until_idle(settings, 60)
    async with connected(settings) as database:
        await until(lambda: database.fetchval("SELECT count(*) FROM membership"), len(USERS))


async def look(settings: Settings) -> Report:
    """Verify in this process."""
    return await verify(settings, Asked(processes=0))


def kinds(report: Report) -> set[str]:
    """Of the differences."""
    return {str(each.kind) for each in report.differences}


async def pick(settings: Settings, query: str, *given: Any) -> Any:
    """One row."""
    async with connected(settings) as database:
        return await database.fetchrow(query, *given)


async def tables(settings: Settings) -> list[Any]:
    """All that a repair could touch, and the journal."""
    async with connected(settings) as database:
        return [
            await database.fetch(f"SELECT * FROM {name} AS row ORDER BY row::text")
            for name in ("organization", "journal", "journal_head", "membership", "partnership", "staff")
        ]


async def records(settings: Settings) -> dict[str, list[Any]]:
    """The relay's topics, by name: key, value and headers of each record, in order within each partition."""
    names = settings.kafka.topics
    return {
        topic: [(each.key(), each.value(), tuple(each.headers() or ())) for each in await read_topic(settings, topic)]
        for topic in (names.events, names.results, names.state)
    }


async def send(
    settings: Settings, topic: str, key: str, value: bytes | None, headers: Sequence[tuple[str, bytes]] | None = ()
) -> None:
    """Write a record, as whoever has no business there."""
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(topic, value, key=key.encode(), headers=list(headers or ()))


async def repair(settings: Settings) -> Any:
    """Plan a repair and run it."""
    tool = await Repair.make(settings)
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    return await runs.run(settings, planned.id)


async def record_of(settings: Settings, topic: str, position: int) -> Any:
    """The first record that has a position in its headers."""
    marked = ("ce_position", str(position).encode())
    return next(each for each in await read_topic(settings, topic) if marked in (each.headers() or ()))
