"""`orgs send membership`, `partnership` and `staff`: what is on the topics then, and in the tables."""

import asyncio
from collections.abc import Iterator
from typing import get_args

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

import org_local
from org_events import reference as contract
from org_service.cli.reference import RoleOption
from org_service.operate.reference import FactEntry, publish
from tests.support.fact_counts import Counts, facts_in_tables, facts_on_topics
from tests.support.operating import ORG, OTHER, Orgs
from tests.support.reference_feed import member
from tests.support.topics import read_topic
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ANN = ("send", "membership", "--user", "ann", "--org", ORG)


async def test_a_membership_is_published_as_the_contract_says(orgs: Orgs) -> None:
    topic = orgs.settings.kafka.topics.memberships
    sent = await orgs(*ANN, "--role", "admin", "--joined-at", "2024-05-17T11:30:00+02:00", "--json")
    assert (sent.json["topic"], sent.json["key"], sent.json["offset"]) == (topic, f"ann:{ORG}", 0)
    again = await orgs(*ANN, "--role", "user", "--inactive")
    assert again.stdout == f"sent  membership ann:{ORG}  {topic}[{sent.json['partition']}] offset 1\n"
    removed = await orgs(*ANN, "--remove")
    assert removed.stdout.startswith(f"sent  end of membership ann:{ORG}  ")
    records = await read_topic(orgs.settings, topic)
    assert [record.key() for record in records] == [f"ann:{ORG}".encode()] * 3
    first, second, third = (record.value() for record in records)
    assert orjson.loads(first or b"") == {
        "user_id": "ann", "org_id": ORG, "role": "admin", "joined_at": "2024-05-17T11:30:00+02:00", "active": True,
    }  # fmt: skip
    assert orjson.loads(second or b"")["active"] is False
    assert third is None


@pytest.mark.usefixtures("running")
async def test_facts_that_were_sent_arrive_in_the_tables_and_can_be_removed(orgs: Orgs) -> None:
    serving = ("send", "partnership", "--partner", OTHER, "--org", ORG)
    await orgs(*ANN, "--role", "admin")
    await orgs(*serving)
    await orgs("send", "staff", "--user", "sue")
    await orgs("send", "staff", "--user", "sam")
    await until(lambda: facts_in_tables(orgs.settings.database), (1, 1, 2))
    assert await facts_on_topics(orgs.settings.kafka) == Counts(memberships=1, partnerships=1, staff=2)
    await orgs(*ANN, "--remove")
    await orgs(*serving, "--remove")
    await orgs("send", "staff", "--user", "sue", "--remove")
    await until(lambda: facts_in_tables(orgs.settings.database), (0, 0, 1))
    assert await facts_on_topics(orgs.settings.kafka) == (0, 0, 1)


async def test_many_facts_are_published_in_order(orgs: Orgs) -> None:
    facts = [member(f"user-{n}") for n in range(2_500)]
    sent = await publish(orgs.settings.kafka, (FactEntry(fact) for fact in facts))
    by_partition: dict[int, list[int]] = {}
    for each in sent:
        by_partition.setdefault(each.partition, []).append(each.offset)
    assert sum(map(len, by_partition.values())) == 2_500
    assert all(offsets == list(range(len(offsets))) for offsets in by_partition.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*ANN,), "--role is required"),
        ((*ANN, "--role", "boss"), "'boss' is not one of"),
        ((*ANN, "--role", "user", "--joined-at", "yesterday"), "joined_at: "),
        ((*ANN, "--role", "user", "--joined-at", "2024-05-17T11:30:00"), "timezone"),
        (("send", "membership", "--user", "ann smith", "--org", ORG, "--role", "user"), "user_id: "),
        (("send", "membership", "--user", "ann", "--org", "acme", "--role", "user"), "--org"),
        (("send", "staff", "--user", "x" * 201), "user_id: "),
    ],
)
async def test_invalid_arguments_are_not_sent(orgs: Orgs, arguments: tuple[str, ...], said: str) -> None:
    wrong = await orgs(*arguments, code=2)
    assert said in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert await facts_on_topics(orgs.settings.kafka) == (0, 0, 0)


async def test_missing_topics_say_what_to_do(orgs: Orgs) -> None:
    rejected = await orgs("send", "staff", "--user", "sue", code=1, ORGS_KAFKA__TOPIC_PREFIX="nowhere.")
    assert "nothing was sent" in rejected.stderr
    assert "nowhere.orgs.staff; run `orgs topics apply`" in rejected.stderr


def test_the_command_line_knows_every_role() -> None:
    assert set(get_args(RoleOption)) == set(contract.Role)


@pytest.mark.parametrize("when", ["it begins", "records are under way"])
async def test_sending_facts_fails_with_a_message_when_kafka_stops_answering(
    stack: org_local.Stack, orgs: Orgs, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    starts = AIOKafkaProducer.start

    async def start(producer: AIOKafkaProducer) -> None:
        if when == "it begins":
            stack.kafka.pause()
        await starts(producer)

    def entries() -> Iterator[FactEntry]:
        yield FactEntry(member("ann"))
        stack.kafka.pause()
        yield FactEntry(member("ann"))

    monkeypatch.setattr(AIOKafkaProducer, "start", start)
    kafka = orgs.settings.kafka.model_copy(update={"request_timeout_ms": 1_000})
    try:
        async with asyncio.timeout(15):
            with pytest.raises(KafkaTimeoutError):
                await publish(kafka, entries())
    finally:
        stack.kafka.resume()
