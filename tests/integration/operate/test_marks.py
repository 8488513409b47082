"""Moments with a name."""

import asyncio

import pytest

from org_events.commands import CreateOrganization
from org_service.operate import marks
from org_service.settings import Settings
from tests.support.idle import wait_until_idle
from tests.support.operating import ORG, OTHER, Acting, Orgs
from tests.support.relaying import org

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running")]


async def test_a_mark_says_where_journal_topics_and_groups_stood(orgs: Orgs, settings: Settings) -> None:
    await orgs("send", "create", "--id", ORG, "--name", "Acme")
    await wait_until_idle(settings, 20)
    made = (await orgs("mark", "before", "--reason", "a release", "--actor", "alice", "--json")).json
    assert (made["name"], made["position"], made["marked_by"], made["reason"]) == ("before", 1, "alice", "a release")
    topics = settings.kafka.topics
    commands = made["topics"][topics.commands]
    assert sum(commands["ends"].values()) == 1
    assert len(commands["id"]) == 36
    # The event and the marker of its transaction, unless brokers had still to write that one.
    assert sum(made["topics"][topics.events]["ends"].values()) in (0, 2)
    group = f"{settings.kafka.topic_prefix}{settings.worker.group_id}"
    assert 1 in made["groups"][group][topics.commands].values()
    assert (await orgs("marks", "show", "before", "--json")).json == made
    shown = (await orgs("marks", "show", "before")).stdout
    assert f"{topics.commands} ends at " in shown
    assert f"{group} on {topics.commands} at " in shown


async def test_names_are_unique_and_free_again_after_a_delete(orgs: Orgs) -> None:
    assert "there is no mark yet" in (await orgs("marks")).stderr
    await orgs("mark", "one")
    await orgs("mark", "two")
    refused = await orgs("mark", "one", code=1)
    assert "the mark 'one' exists already" in refused.stderr
    assert [each["name"] for each in (await orgs("marks", "--json")).json_lines] == ["two", "one"]
    await orgs("marks", "delete", "one")
    refused = await orgs("marks", "delete", "one", code=1)
    assert "there is no mark 'one'" in refused.stderr
    await orgs("mark", "one")


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a/b", "x" * 101, "é"])
async def test_a_name_must_be_one_that_is_easily_typed(orgs: Orgs, name: str) -> None:
    refused = await orgs("mark", "--", name, code=1)
    assert "can't be the name of a mark" in refused.stderr


async def test_of_two_who_make_one_mark_one_does(settings: Settings) -> None:
    answers = await asyncio.gather(
        *(marks.make(settings, "now", marked_by="alice", reason="") for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in answers) == ["Mark", "PreconditionError"]


async def test_every_change_after_a_mark_is_behind_the_ends_that_it_has(
    orgs: Orgs, settings: Settings, act: Acting
) -> None:
    """So a consumer that is reset to them misses nothing, though commands flow while they are looked at."""
    enough, created = asyncio.Event(), 0

    async def create_some() -> None:
        nonlocal created
        ids = range(created, created + 100)
        await act("alice", [CreateOrganization(org_id=org(n), name=f"{n}") for n in ids])
        created += 100

    async def keep_acting() -> None:
        while not enough.is_set():
            await create_some()

    acting = asyncio.create_task(keep_acting())
    made = [await marks.make(settings, f"mark-{n}", marked_by="alice", reason="") for n in range(4)]
    enough.set()
    await acting
    await create_some()
    await wait_until_idle(settings, 60)
    topic = settings.kafka.topics.events
    events = [
        (each["partition"], each["offset"], each["value"]["position"])
        for each in (await orgs("tail", "events", "--from-start", "--no-follow", "--json")).json_lines
    ]
    assert made[0].position < made[-1].position < len(events) == created
    for mark in made:
        ends = mark.topics[topic]["ends"]
        before = [position for partition, offset, position in events if offset < ends[str(partition)]]
        assert max(before, default=0) <= mark.position


async def test_a_replay_is_bounded_by_marks(orgs: Orgs) -> None:
    await orgs("mark", "empty")
    await orgs("send", "create", "--id", ORG, "--name", "Acme")
    await orgs("mark", "first")
    await orgs("send", "create", "--id", OTHER, "--name", "Other")

    async def positions(*options: str) -> list[int]:
        return [each["position"] for each in (await orgs("replay", "events", "--json", *options)).json["sample"]]

    assert await positions("--from-mark", "first") == [2]
    assert await positions("--to-mark", "first") == [1]
    assert await positions("--from-mark", "empty", "--to-mark", "first") == [1]
    refused = await orgs("replay", "events", "--to-mark", "empty", code=1)
    assert "the journal was empty then" in refused.stderr
    refused = await orgs("replay", "events", "--from-mark", "first", "--from-position", "1", code=2)
    assert "exclude each other" in refused.stderr
