"""What Kafka acknowledged and lost is sent again before anything later: guarantee 11, on real segment files."""

import asyncio
from collections.abc import Coroutine
from itertools import count
from typing import Any

import pytest
from confluent_kafka import Producer as OtherProducer

import org_local
from org_service.kafka import logs
from org_service.kafka.producer import Producer
from org_service.operate.verifying.report import Kind
from org_service.probes import Point, listeners
from org_service.relay.relay import State
from org_service.settings import Settings
from org_service.telemetry.metrics import RELAY_LOSSES, RELAY_RESENT
from tests.support.log_faults import batches, cut_last, cut_tails, delete_records, ends
from tests.support.observed import Record
from tests.support.relaying import (
    Seen,
    changes,
    journal,
    publish_without_ends,
    relay_settings,
    running,
    seen,
    send_again,
    take_back,
)

pytestmark = pytest.mark.integration

ORGS = 7
ROWS = 35
KINDS = ("events", "state", "results")


async def published(settings: Settings, rows: int = ROWS, rows_max: int = 5) -> int:
    """A relay's work that is over: several transactions; returns the head."""
    head = await journal(settings, changes(rows))
    async with running(relay_settings(settings, batch_rows_max=rows_max)) as run:
        await run.published(head)
    await seen(settings)  # the last markers are written
    return head


def contents(found: Seen) -> dict[str, list[tuple[Any, ...]]]:
    """By topic and partition in order: all but offsets and times."""
    return {
        kind: [(each.partition, each.key, each.value, each.headers) for each in in_order(getattr(found, kind))]
        for kind in KINDS
    }


def in_order(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda each: (each.partition, each.offset))


def ordered(records: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """A partition after the other."""
    return sorted(records, key=lambda each: each[0])


def topic_of(settings: Settings, kind: str) -> str:
    return str(getattr(settings.kafka.topics, kind))


async def cut(
    stack: org_local.Stack, settings: Settings, cuts: dict[tuple[str, int], int]
) -> dict[tuple[str, int], int]:
    """Lose so many last batches of partitions, by kind of topic; returns where they end then, by topic."""
    wanted = {(topic_of(settings, kind), partition): number for (kind, partition), number in cuts.items()}
    return await asyncio.to_thread(cut_last, stack, wanted)


def counted(metric: Any, topic: str) -> float:
    return float(metric.labels(topic)._value.get())


async def assert_whole(settings: Settings, before: Seen, rows: int) -> Seen:
    """Everything is there once, in order, with the bytes that it had."""
    after = await seen(settings)
    was, now = contents(before), contents(after)
    for kind in KINDS:
        positions = [int(dict(headers)["ce_position"]) for _, _, _, headers in now[kind]]
        assert sorted(positions) == list(range(1, rows + 1)), kind
        for partition in range(3):
            of_it = [each for each in now[kind] if each[0] == partition]
            places = [int(dict(headers)["ce_position"]) for _, _, _, headers in of_it]
            assert places == sorted(places), (kind, partition)
            former = [each for each in was[kind] if each[0] == partition]
            assert of_it[: len(former)] == former, (kind, partition)
    positions = after.relayed()
    assert positions == sorted(positions)
    assert positions[-1] == rows
    return after


@pytest.mark.parametrize("kind", KINDS)
async def test_a_tail_that_was_lost_while_no_relay_ran_is_sent_again(
    settings: Settings, stack: org_local.Stack, kind: str
) -> None:
    topic = topic_of(settings, kind)
    lost, resent = counted(RELAY_LOSSES, topic), counted(RELAY_RESENT, topic)
    head = await published(settings)
    before = await seen(settings)
    partition = getattr(before, kind)[-1].partition
    await cut(stack, settings, {(kind, partition): 4})
    head = await journal(settings, changes(5, after=head))
    async with running(settings) as run:
        await run.published(head)
    await assert_whole(settings, before, head)
    assert counted(RELAY_LOSSES, topic) == lost + 1
    assert counted(RELAY_RESENT, topic) > resent


@pytest.mark.parametrize("left", [0, 1])
async def test_what_retention_has_taken_is_no_loss(settings: Settings, left: int) -> None:
    """Whole partitions, the relay's last records and their markers; or all but the markers."""
    head, topics = await published(settings), [topic_of(settings, kind) for kind in ("events", "results")]
    lost = [counted(RELAY_LOSSES, topic) for topic in topics]
    for topic in topics:
        found = ends(settings.kafka.bootstrap_servers, topic, [0, 1, 2])
        before = {partition: max(0, end - left) for partition, end in found.items()}
        await asyncio.to_thread(delete_records, settings.kafka.bootstrap_servers, topic, before)
    head = await journal(settings, changes(5, after=head))
    async with running(settings) as run:
        await run.published(head)
    after = await seen(settings)
    assert sorted(int(each.header("ce_position") or 0) for each in after.results) == list(range(ROWS + 1, head + 1))
    assert [counted(RELAY_LOSSES, topic) for topic in topics] == lost


@pytest.mark.parametrize(
    ("told", "cuts"),
    [
        (True, {("events", 0): 2, ("state", 1): 4, ("results", 2): 3, ("results", 0): 1}),
        (True, {("events", 0): 1_000}),
        (False, {("events", 0): 1_000}),
    ],
    ids=["tails", "all of a partition", "all of a partition whose end no record tells"],
)
async def test_a_tail_that_is_lost_under_an_idle_relay_is_found_by_the_transaction_that_follows(
    settings: Settings, stack: org_local.Stack, told: bool, cuts: dict[tuple[str, int], int]
) -> None:
    """Its connection comes back, and nothing else tells; where all is lost not even the broker's check of sequences."""
    head = await (journal(settings, changes(ROWS)) if told else published(settings))
    if not told:
        head = await journal(settings, changes(ORGS, after=head))
        await publish_without_ends(settings, ROWS, ORGS)
    async with running(relay_settings(settings, batch_rows_max=5)) as run:
        await run.published(head)
        before = await seen(settings, settle=False)
        await cut(stack, settings, cuts)
        head = await journal(settings, changes(7, after=head))
        await run.published(head)
    await assert_whole(settings, before, head)


@pytest.mark.parametrize(("number", "more"), [(2, 7), (1_000, 0)], ids=["more", "as many"])
async def test_a_loss_on_a_partition_is_found_though_workers_wrote_behind_it(
    settings: Settings, stack: org_local.Stack, number: int, more: int
) -> None:
    """Replies to duplicates fill the gap: the offset of the next result is above what is expected, or just that.

    Where all of a producer's batches are lost, the broker can't say that its sequence has a gap.
    """
    topic = settings.kafka.topics.results
    head = await journal(settings, changes(ROWS))
    async with running(relay_settings(settings, batch_rows_max=5)) as run:
        await run.published(head)
        before = await seen(settings, settle=False)
        partition = before.results[-1].partition
        copy = next(each for each in before.results if each.partition != partition)
        end = await asyncio.to_thread(ends, stack.bootstrap_servers, topic, [partition])
        kept = await cut(stack, settings, {("results", partition): number})
        await reply(settings, copy, partition, end[partition] - kept[topic, partition] + more)
        await coordinated(settings)
        head = await journal(settings, changes(7, after=head))
        await run.published(head)
    after = await seen(settings)
    of_relay = [each for each in after.results if each.value != copy.value or each.partition == copy.partition]
    positions = sorted(int(each.header("ce_position") or 0) for each in of_relay)
    assert positions == list(range(1, head + 1))


async def test_replies_of_workers_are_no_loss(settings: Settings) -> None:
    """Before a relay begins, and between its transactions: where its own end is must be told right each time."""
    losses, head = counted(RELAY_LOSSES, settings.kafka.topics.results), await published(settings)
    copy = (await seen(settings)).results[-1]
    for _ in range(2):
        await reply(settings, copy, copy.partition, 3)
        async with running(settings) as run:
            await run.until(lambda relay: relay.state is State.READY)
            await reply(settings, copy, copy.partition, 2)
            head = await journal(settings, changes(ORGS, after=head))
            await run.published(head)
    assert counted(RELAY_LOSSES, settings.kafka.topics.results) == losses


async def coordinated(settings: Settings) -> None:
    """Wait until the broker coordinates transactions again, whosever: before that a relay begins anew by itself."""
    for number in range(16):
        producer = Producer(settings.kafka, f"{settings.kafka.topic_prefix}{number}", 10_000)
        await producer.start([settings.kafka.topics.relay])
        await producer.close()


async def reply(settings: Settings, copy: Record, partition: int, times: int) -> None:
    """What a worker sends for a duplicate, outside of transactions."""

    def send() -> None:
        producer = OtherProducer({"bootstrap.servers": settings.kafka.bootstrap_servers, "acks": "all", "log_level": 2})
        for _ in range(times):
            producer.produce(settings.kafka.topics.results, copy.value, copy.key, partition, headers=list(copy.headers))
        assert producer.flush(20) == 0

    await asyncio.to_thread(send)


@pytest.mark.parametrize("told", [True, False], ids=["ends told", "no ends told"])
async def test_a_transaction_that_lost_its_commit_marker_is_sent_again(
    settings: Settings, stack: org_local.Stack, told: bool
) -> None:
    """Else readers would wait before that transaction for ever, and the next one's marker would end it.

    Where the position record is of an earlier release, nothing but the open transaction tells of the loss.
    """
    head = await published(settings)
    if not told:
        head = await journal(settings, changes(ORGS, after=head))
        await publish_without_ends(settings, ROWS, ORGS)
    before = await seen(settings)
    await cut(stack, settings, {("events", before.events[-1].partition): 1, **({("relay", 0): 1} if told else {})})
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    await assert_whole(settings, before, head + 5)


async def test_a_repair_does_not_hide_what_was_lost_before_it(settings: Settings, stack: org_local.Stack) -> None:
    """It writes the relay's position once more, with the ends that the relay left."""
    head = await published(settings)
    before = await seen(settings)
    await cut(stack, settings, {("events", before.events[-1].partition): 4})
    await send_again(settings, Kind.RESULT_MISSING, [1])
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    assert (await seen(settings)).event_positions() == list(range(1, head + 6))


@pytest.mark.parametrize("kinds", [("events",), ("relay",), ("events", "state", "relay")], ids="-".join)
async def test_what_was_taken_back_stays_so_though_its_marker_is_lost(
    settings: Settings, stack: org_local.Stack, kinds: tuple[str, ...]
) -> None:
    """The transaction that came upon a loss has later rows than those that are missing before it."""
    head = await published(settings, rows_max=ORGS)
    before = await seen(settings)
    partition = before.events[-1].partition
    await cut(stack, settings, {("events", partition): 4, ("state", partition): 4})
    head = await journal(settings, changes(ORGS, after=head))
    await take_back(settings, ROWS, ORGS)
    async with running(settings) as run:
        await run.published(head)
    await seen(settings)
    places = [(topic_of(settings, kind), 0 if kind == "relay" else partition) for kind in kinds]
    markers = {
        at: next(each.first for each in batches(stack.kafka.brokers[0].logs, *at) if each.aborts) for at in places
    }
    await asyncio.to_thread(cut_tails, stack, markers)
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    await assert_whole(settings, before, head + 5)


@pytest.mark.parametrize("more", [{}, {("relay", 0): 1_000}], ids=["events", "events and relay"])
async def test_old_records_that_a_repair_sent_again_do_not_hide_the_newer_ones_before_them(
    settings: Settings, stack: org_local.Stack, monkeypatch: pytest.MonkeyPatch, more: dict[tuple[str, int], int]
) -> None:
    """What is last in a partition after a loss is not the newest then; all that came since would go out twice."""
    monkeypatch.setattr(logs, "WINDOW_OFFSETS", 1)  # as if there were many of them
    monkeypatch.setattr(logs, "WINDOW_GROWTH", 1)
    head = await published(settings, rows_max=ORGS)
    await send_again(settings, Kind.EVENT_MISSING, range(1, ORGS + 1))
    head = await journal(settings, changes(ORGS, after=head))
    async with running(settings) as run:
        await run.published(head)
    before = await seen(settings)
    partition = before.events[-1].partition
    await cut(stack, settings, {("events", partition): 2, **more})
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    assert (await seen(settings)).event_positions() == sorted([*range(1, ORGS + 1), *range(1, head + 6)])


@pytest.mark.parametrize(("number", "events"), [(2, 0), (1_000, 0), (1_000, 1_000)])
async def test_positions_that_the_relays_own_topic_lost_are_not_published_twice(
    settings: Settings, stack: org_local.Stack, number: int, events: int
) -> None:
    """Its last records, or all of them: the events say how far it was, and where they end if they are lost next.

    Or all of them and all of a partition: then nothing but the others tells that there was something.
    """
    head = await published(settings)
    before = await seen(settings)
    partition = before.events[-1].partition
    await cut(stack, settings, {("relay", 0): number, **({("events", partition): events} if events else {})})
    async with running(settings) as run:
        await run.until(lambda relay: relay.position == head)
    await cut(stack, settings, {("events", partition): 2})
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    await assert_whole(settings, before, head + 5)


async def test_what_stands_where_others_records_were_looked_at_is_not_published_twice(
    settings: Settings, stack: org_local.Stack
) -> None:
    """Remains of what was taken back are lost, rows take their offsets, and then the relay's position is lost, too."""
    await published(settings)
    before = await seen(settings)
    await take_back(settings, 0, 4 * ORGS)
    head = await journal(settings, changes(1, after=ROWS))
    async with running(settings) as run:
        await run.published(head)
    [touched] = {each.partition for each in (await seen(settings)).events if each.header("ce_position") == str(head)}
    await cut(stack, settings, {("events", partition): 2 for partition in range(3) if partition != touched})
    head = await journal(settings, changes(ORGS, after=head))
    async with running(settings) as run:
        await run.published(head)
    await seen(settings)
    await cut(stack, settings, {("relay", 0): 2})
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    await assert_whole(settings, before, head + 5)


async def test_a_power_loss_takes_another_tail_of_each_partition(settings: Settings, stack: org_local.Stack) -> None:
    head = await published(settings)
    before = await seen(settings)
    cuts = {
        (kind, partition): (partition * 3 + number) % 5 for number, kind in enumerate(KINDS) for partition in (0, 1, 2)
    }
    await cut(stack, settings, {**{at: number for at, number in cuts.items() if number}, ("relay", 0): 3})
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    await assert_whole(settings, before, head + 5)


@pytest.mark.parametrize("point", ["relay.before_publish", "relay.before_commit", "relay.after_publish"])
async def test_a_healing_that_is_killed_at_each_of_its_transactions_ends_the_same(
    settings: Settings, stack: org_local.Stack, monkeypatch: pytest.MonkeyPatch, point: Point
) -> None:
    head = await published(settings)
    before = await seen(settings)
    one, other = before.events[-1].partition, (before.events[-1].partition + 1) % 3
    cuts = {("events", one): 8, ("state", one): 6, ("state", other): 8, ("results", one): 4, ("relay", 0): 4}
    await cut(stack, settings, cuts)
    for number in range(4):
        with monkeypatch.context() as patch:
            reached = hang(patch, number, point)
            async with running(relay_settings(settings, batch_rows_max=3)) as run:
                await first_of(reached.wait(), run.until(lambda relay: relay.state is State.READY))
                await run.killed()
    async with running(settings) as run:
        await run.published(await journal(settings, changes(5, after=head)))
    await assert_whole(settings, before, head + 5)


def hang(patch: pytest.MonkeyPatch, number: int, point: Point) -> asyncio.Event:
    """Let the transaction of this number get no further than a point."""
    reached, counted = asyncio.Event(), count()

    async def stay() -> None:
        if next(counted) == number:
            reached.set()
            await asyncio.Event().wait()

    patch.setitem(listeners, point, stay)
    return reached


async def first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.create_task(each) for each in waits]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for each in done:
        each.result()
