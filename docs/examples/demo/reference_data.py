"""What other services tell about users: memberships, partnerships, staff; published, and found in the tables."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

from cases import ARRIVAL_TIMEOUT_S, Demo, console, heading, note

from org_events import Membership, Partnership, Reference, Role, Staff
from org_service.operate import reference
from org_service.operate.reference import FactEntry
from org_service.settings import Settings
from org_service.store.facts import Counts

FILE = Path(__file__).with_name("reference.jsonl")
POLL_S = 0.05
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
    wanted = await reference.facts_on_topics(demo.settings.kafka)
    found = await _arrived(demo.settings, wanted)
    console.print(
        f"  in the tables {time.monotonic() - started:.1f} s later, as on the topics: {found.memberships} memberships, "
        f"{found.partnerships} partnerships, {found.staff} staff"
    )


async def _arrived(settings: Settings, wanted: Counts) -> Counts:
    """Wait until the tables hold as many facts as the topics."""
    async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
        while True:
            found = await reference.facts_in_tables(settings.database)
            if found == wanted:
                return found
            await asyncio.sleep(POLL_S)
