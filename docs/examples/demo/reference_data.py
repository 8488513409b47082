"""What other services tell about users: memberships, partnerships, staff; published, and found in the tables."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

from cases import ARRIVAL_TIMEOUT_S, POLL_S, Demo, console, heading, note

from org_events import Membership, Partnership, Reference, Role, Staff
from org_service.kafka.reader import read_all
from org_service.operate import reference
from org_service.operate.reference import FactEntry
from org_service.settings import KafkaSettings, Settings
from org_service.store.database import Database
from org_service.store.facts import FACT_TABLES
from org_service.wire.facts import map_kinds

FILE = Path(__file__).with_name("reference.jsonl")
_KINDS: dict[str, type[Reference]] = {"membership": Membership, "partnership": Partnership, "staff": Staff}


def facts() -> Iterator[Reference]:
    """Every fact of the file."""
    for line in FILE.read_text(encoding="utf-8").splitlines():
        document = json.loads(line)
        yield _KINDS[document.pop("kind")].model_validate(document)


async def share(demo: Demo) -> None:
    """Publish everything, then a promotion and a farewell; the tables must say the same as the topics."""
    given = list(facts())
    heading(
        f"{len(given)} facts about users from {FILE.name}, on topics that other services publish: no "
        "command, no outcome"
    )
    memberships = [each for each in given if isinstance(each, Membership)]
    member, leaver = memberships[0], memberships[1]
    promotion = member.model_copy(update={"role": Role.SUPPORT if member.role is Role.ADMIN else Role.ADMIN})
    started = time.monotonic()
    await reference.publish(demo.settings.kafka, map(FactEntry, given))
    await reference.publish(demo.settings.kafka, [FactEntry(promotion), FactEntry(leaver, removed=True)])
    note(
        f"then {member.user_id} becomes {promotion.role}, and {leaver.user_id} leaves: the last record of a key counts"
    )
    wanted = await _on_topics(demo.settings.kafka)
    await _arrived(demo.settings, wanted)
    found = [len(wanted[kind]) for kind in (Membership, Partnership, Staff)]
    console.print(
        f"  in the tables {time.monotonic() - started:.1f} s later, as on the topics: {found[0]} memberships, "
        f"{found[1]} partnerships, {found[2]} staff"
    )


async def _on_topics(kafka: KafkaSettings) -> dict[type[Reference], set[str]]:
    """The keys of each kind whose last record is not a tombstone."""
    live: dict[type[Reference], set[str]] = {}
    for topic, kind in map_kinds(kafka.topics).items():
        last: dict[bytes | None, bytes | None] = {}
        async for records in read_all(kafka, topic):
            last.update((record.key, record.value) for record in records)
        live[kind] = {(key or b"").decode() for key, value in last.items() if value is not None}
    return live


async def _in_tables(database: Database) -> dict[type[Reference], set[str]]:
    """The keys of each kind that the service knows."""
    async with database.connect() as conn:
        return {
            kind: {":".join(map(str, key)) async for page in table.read_keys(conn) for key in page}
            for kind, table in FACT_TABLES.items()
        }


async def _arrived(settings: Settings, wanted: dict[type[Reference], set[str]]) -> None:
    """Wait until the tables hold the facts of the topics."""
    database = Database(settings.database, "reader", direct=True)
    async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
        while True:
            found = await _in_tables(database)
            if found == wanted:
                return
            await asyncio.sleep(POLL_S)
