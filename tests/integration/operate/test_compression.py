"""Topics that recompress what they are sent (`compression.type`), in turn with every codec: every reader reads on.

Brokers write frames of their own then, which differ from those of publishers' libraries.
"""

import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from org_events.reference import Membership, Partnership, Role, Staff
from org_local.stack import Stack
from org_service.operate import reference
from org_service.settings import Settings
from tests.support import log_faults
from tests.support.database import execute
from tests.support.fact_counts import Counts, facts_in_tables, facts_on_topics
from tests.support.idle import wait_until_idle
from tests.support.operating import ORG, Orgs, Service
from tests.support.raw_batches import CODECS, stored_codecs
from tests.support.reference_feed import JOINED
from tests.support.verified import find_differences
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ALL = ("--from-start", "--no-follow", "--json")


async def test_every_reader_works_with_every_codec_of_the_topics(
    settings: Settings, stack: Stack, orgs: Orgs, service: Service
) -> None:
    """Worker, relay, the client, `orgs tail`, the accounts; readers of reference data, also after a long absence."""
    kafka, topics = settings.kafka, settings.kafka.topics
    names = [spec.name for spec in topics.specs(partitions=kafka.partitions)]
    facts = [
        fact
        for user in CODECS
        for fact in (
            Membership(user_id=user, org_id=UUID(ORG), role=Role.USER, joined_at=JOINED),
            Partnership(partner_org_id=uuid4(), org_id=UUID(ORG)),
            Staff(user_id=user),
        )
    ]
    await orgs("send", "create", "--id", ORG, "--name", "none", "--no-wait")
    for number, codec in enumerate(CODECS):
        for name in names:
            await asyncio.to_thread(log_faults.configure, kafka.bootstrap_servers, name, {"compression.type": codec})
        await reference.publish(kafka, map(reference.FactEntry, facts[3 * number :][:3]))
        service.start("worker", "relay")  # the relay finds where it was, in what the codec before this one packed
        await orgs("send", "update", ORG, "--name", codec)
        await until(lambda: facts_in_tables(settings.database), Counts(*[number + 1] * 3))
        await wait_until_idle(settings, 20)
        await service.stop()
    # Nobody read for so long that the tombstones are gone: what the topics lack is deleted, and nothing else.
    await execute(settings, "UPDATE reference_progress SET confirmed_at = now() - $1::interval", timedelta(days=400))
    await execute(settings, "INSERT INTO staff VALUES ('revoked')")
    service.start("worker")
    await until(lambda: facts_in_tables(settings.database), Counts(4, 4, 4))
    for name in names:
        assert stored_codecs(stack, name, 1 if name == topics.relay else kafka.partitions) >= {*CODECS.values()}
    assert await facts_on_topics(kafka) == Counts(4, 4, 4)
    assert await find_differences(settings) == []
    for what in ("commands", "results", "events"):
        shown = (await orgs("tail", what, *ALL)).json_lines
        assert len(shown) == 5
    assert [line["value"]["after"]["name"] for line in (await orgs("tail", "events", *ALL)).json_lines] == [
        "none",
        *CODECS,
    ]
