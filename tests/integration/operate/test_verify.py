"""`orgs verify` and `orgs repair`: what is planted is found, named and mended, and nothing else is touched."""

import asyncio
import gc
import json
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psutil
import pytest

from org_service.errors import PreconditionError
from org_service.operate import runs
from org_service.operate.erase import Erase
from org_service.operate.verifying.repair import Repair
from org_service.operate.verifying.report import Kind, Verdict
from org_service.operate.verifying.verification import Asked, verify
from org_service.probes import Point
from org_service.settings import Settings
from tests.support.database import connected, execute
from tests.support.erasing import at_once
from tests.support.idle import wait_until_idle
from tests.support.killing import kill_at, until_abandoned
from tests.support.operating import Service
from tests.support.probing import Killed, probing
from tests.support.random_commands import RandomCommands
from tests.support.reference_feed import ACME
from tests.support.rehearsing import publish
from tests.support.verifying import DELETED, LIVING, kinds, look, pick, record_of, records, repair, send, tables
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ROUNDS = 3
"""Of verification under load."""
SECONDS = float(os.environ.get("VERIFY_SECONDS", "60"))
"""At least so long; `make verify-soak` takes an hour."""
KEPT_BYTES_MAX = 100_000
"""Over five verifications, by everything in this process: less than one record batch, or half of what one finds."""


async def test_a_sound_history_is_equal(settings: Settings, history: Service) -> None:
    report = await look(settings)
    assert report.differences == []
    assert report.verdict is Verdict.EQUAL, report.comparisons
    async with connected(settings) as database:
        head = await database.fetchval("SELECT position FROM journal_head")
        organizations = await database.fetchval("SELECT count(*) FROM organization")
        alive = await database.fetchval("SELECT count(*) FROM organization WHERE deleted_at IS NULL")
        events = await database.fetchval("SELECT count(event_type) FROM journal")
    assert report.position == head
    assert [each.checked for each in report.comparisons][2:6] == [organizations, events, head, alive]


CHANGES = (
    "SELECT position, org_id FROM journal WHERE event_type = 'org.updated' AND org_id NOT IN "
    "(SELECT id FROM organization ORDER BY id LIMIT 8) ORDER BY position"
)


async def change_row(settings: Settings) -> str:
    row = await pick(settings, LIVING.format(0))
    await execute(settings, f"UPDATE organization SET domain = 'planted.example' WHERE id = '{row['id']}'")
    return str(row["id"])


async def lose_row(settings: Settings) -> str:
    row = await pick(settings, LIVING.format(1))
    await execute(settings, f"DELETE FROM organization WHERE id = '{row['id']}'")
    return str(row["id"])


async def bring_back_a_deleted_row(settings: Settings) -> str:
    row = await pick(settings, DELETED.format(0))
    await execute(settings, f"UPDATE organization SET deleted_at = NULL, name_key = 'planted' WHERE id = '{row['id']}'")
    return str(row["id"])


async def change_relation(settings: Settings) -> str:
    await execute(settings, "UPDATE membership SET role = 'admin' WHERE user_id = 'alice'")
    return f"alice:{ACME}"


async def lose_relation(settings: Settings) -> str:
    await execute(settings, "DELETE FROM membership WHERE user_id = 'bob'")
    return f"bob:{ACME}"


async def write_wrong_state(settings: Settings) -> str:
    row = await pick(settings, LIVING.format(2))
    of_it = f"SELECT position FROM journal WHERE org_id = '{row['id']}' AND version = {row['version']}"
    last = await pick(settings, of_it)
    state = await record_of(settings, settings.kafka.topics.state, last["position"])
    wrong = json.loads(state.value()) | {"domain": "planted.example"}
    await send(settings, settings.kafka.topics.state, str(row["id"]), json.dumps(wrong).encode(), state.headers())
    return str(row["id"])


async def write_foreign_tombstone(settings: Settings) -> str:
    row = await pick(settings, LIVING.format(3))
    await send(settings, settings.kafka.topics.state, str(row["id"]), None)
    return str(row["id"])


async def undo_tombstone(settings: Settings) -> str:
    row = await pick(settings, DELETED.format(1))
    await send(settings, settings.kafka.topics.state, str(row["id"]), b'{"name":"still here"}')
    return str(row["id"])


async def write_second_outcome(settings: Settings) -> str:
    row = await pick(settings, CHANGES)
    result = await record_of(settings, settings.kafka.topics.results, row["position"])
    wrong = json.loads(result.value()) | {"outcome": "rejected"}
    body = json.dumps(wrong, separators=(",", ":")).encode()
    await send(settings, settings.kafka.topics.results, str(row["org_id"]), body, result.headers())
    return str(row["org_id"])


REPAIRABLE: tuple[tuple[Callable[[Settings], Awaitable[str]], Kind, str], ...] = (
    (lose_row, Kind.ORGANIZATION_MISSING, ""),
    (change_row, Kind.ORGANIZATION_DIFFERS, "domain"),
    (bring_back_a_deleted_row, Kind.ORGANIZATION_DIFFERS, "name_key"),
    (change_relation, Kind.FACT_DIFFERS, ""),
    (lose_relation, Kind.FACT_DIFFERS, ""),
    (write_wrong_state, Kind.STATE_DIFFERS, "domain"),
    (write_foreign_tombstone, Kind.STATE_MISSING, ""),
    (undo_tombstone, Kind.TOMBSTONE_MISSING, ""),
    (write_second_outcome, Kind.RESULT_DIFFERS, "outcome"),
)
IN_TOPICS = 4
"""Of these."""


@pytest.mark.usefixtures("history")
async def test_planted_damage_is_found_named_and_repaired_and_nothing_else_is_touched(settings: Settings) -> None:
    rows, before = await tables(settings), await records(settings)
    planted = [(kind, await plant(settings), field) for plant, kind, field in REPAIRABLE]
    damaged = await records(settings)
    report = await look(settings)
    assert report.verdict is Verdict.DIFFERS
    assert {(each.kind, each.subject) for each in report.differences} == {(kind, org) for kind, org, _ in planted}
    assert {(kind, org, field) for kind, org, field in planted} <= {
        (each.kind, each.subject, each.field) for each in report.differences
    }
    ran = await repair(settings)
    assert (ran.state, ran.counts) == ("done", {"repaired": len(REPAIRABLE)})
    assert await tables(settings) == rows
    now = await records(settings)
    sent = [
        each
        for topic, records_now in now.items()
        for each in (Counter(records_now) - Counter(damaged[topic])).elements()
    ]
    assert len(sent) == IN_TOPICS
    assert all(any(each in were for were in before.values()) for each in sent), "the same bytes as at first"
    report = await look(settings)
    assert (report.verdict, report.differences) == (Verdict.EQUAL, []), report.comparisons
    (note,) = report.notes
    assert note.startswith(f"{settings.kafka.topics.results}: 1 records are wrong with the right one behind them")
    with pytest.raises(PreconditionError, match="nothing that `orgs repair` can mend differs"):
        await Repair.make(settings)


async def skip_rows(settings: Settings, history: Service) -> list[int]:
    """Let the relay believe that the next rows were published; returns their positions."""
    await history.stop("relay")
    head = await pick(settings, "SELECT position FROM journal_head")
    await publish(settings, RandomCommands(9, 4).commands(12))
    async with connected(settings) as database:

        async def decided() -> bool:
            return bool(await database.fetchval("SELECT position FROM journal_head") >= head["position"] + 9)

        await until(decided)
        await history.stop("worker")
    now = (await pick(settings, "SELECT position FROM journal_head"))["position"]
    said = json.dumps({"position": now, "command_id": None}).encode()
    await send(settings, settings.kafka.topics.relay, settings.relay.name, said)
    return [*range(head["position"] + 1, now + 1)]


async def test_records_that_were_never_sent_are_found_and_sent_once_also_by_a_run_that_was_killed(
    settings: Settings, history: Service
) -> None:
    skipped = await skip_rows(settings, history)
    report = await look(settings)
    missing = {each.position for each in report.differences if each.kind is Kind.RESULT_MISSING}
    assert missing == set(skipped)
    assert kinds(report) == {Kind.RESULT_MISSING, Kind.EVENT_MISSING, Kind.STATE_MISSING}
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    tool = await Repair.make(settings)
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    points: tuple[Point, ...] = ("operate.before_publish", "operate.after_publish")
    for point in points:
        with probing(point, kill_at(1)), pytest.raises(Killed):
            await runs.run(impatient, planned.id)
        await until_abandoned(impatient, planned.id)
    history.start("relay", "worker")
    ran = await runs.run(settings, planned.id)
    assert ran.state == "done"
    assert ran.counts == {"repaired": len(report.differences)}
    report = await look(settings)
    assert (report.verdict, report.differences) == (Verdict.EQUAL, []), report.comparisons
    await publish(settings, RandomCommands(11, 4).commands(10))
    await wait_until_idle(settings, 60)
    assert (await look(settings)).verdict is Verdict.EQUAL


async def test_damage_that_nobody_can_repair_is_found_named_and_left_alone(
    settings: Settings, history: Service
) -> None:
    changes = [row async for row in rows_of(settings, CHANGES)]
    changed, doubled = changes[0], changes[1]
    lost = await pick(
        settings, "SELECT position, org_id FROM journal WHERE outcome = 'rejected' ORDER BY position DESC"
    )
    event = await record_of(settings, settings.kafka.topics.events, doubled["position"])
    await send(settings, settings.kafka.topics.events, str(doubled["org_id"]), event.value(), event.headers())
    await send(settings, settings.kafka.topics.events, str(ACME), b"{}")
    await execute(
        settings,
        f'UPDATE journal SET after = replace(after, \'"name":"\', \'"name":"X\') '
        f"WHERE position = {changed['position']}",
    )
    await execute(settings, f"DELETE FROM journal WHERE position = {lost['position']}")
    rows, published = await tables(settings), await records(settings)
    report = await look(settings)
    assert report.verdict is Verdict.DIFFERS
    named = {(each.kind, each.position) for each in report.differences}
    assert (Kind.JOURNAL_CHANGED, changed["position"]) in named
    assert (Kind.JOURNAL_HOLE, lost["position"]) in named
    assert (Kind.RESULT_FOREIGN, lost["position"]) in named
    assert (Kind.EVENT_DOUBLED, doubled["position"]) in named
    assert (Kind.EVENT_FOREIGN, None) in named
    with pytest.raises(PreconditionError) as refused:
        await Repair.make(settings)
    assert f"journal_hole  at position {lost['position']}: restore the journal from a backup" in str(refused.value)
    assert (await tables(settings), await records(settings)) == (rows, published)


async def test_what_can_not_be_told_now_is_inconclusive(settings: Settings, history: Service) -> None:
    await history.stop("relay")
    await publish(settings, RandomCommands(9, 4).commands(3))
    async with connected(settings) as database:
        head = await database.fetchval("SELECT position FROM journal_head")
        await until(lambda: database.fetchval(f"SELECT position > {head} - 1 FROM journal_head"))
        await history.stop("worker")
        await database.execute(
            "INSERT INTO journal SELECT position + 1, gen_random_uuid(), org_id, version, command_type, "
            "NULL, 'unchanged', 200, actor, request_digest, 0, 0, NULL, NULL, after, NULL, NULL, recorded_at "
            "FROM journal ORDER BY position DESC LIMIT 1"
        )
        await database.execute("UPDATE journal_head SET position = position + 1")
    report = await verify(settings, Asked(processes=0, relay_wait_s=0.1))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "is it running" in report.comparisons[-1].why
    earlier = await verify(settings, Asked(at=100, processes=0))
    assert (earlier.verdict, earlier.position) == (Verdict.EQUAL, 100)
    with pytest.raises(PreconditionError, match="the journal ends at position"):
        await verify(settings, Asked(at=1_000_000))


@pytest.mark.usefixtures("history")
async def test_what_was_erased_is_no_difference(settings: Settings) -> None:
    tool = await Erase.make(at_once(settings), None)
    planned, _ = await runs.keep_plan(at_once(settings), tool, requested_by="bob", reason="a test")
    erased = await runs.run(at_once(settings), planned.id)
    assert erased.counts
    await wait_until_idle(settings, 30)
    report = await look(settings)
    assert (report.verdict, report.differences, report.notes) == (Verdict.EQUAL, [], []), report.comparisons
    (emptied,) = await pick(settings, "SELECT count(*) FROM journal WHERE request_digest = '' AND command_offset >= 0")
    assert emptied > len(erased.counts)
    checked = {each.name: each.checked for each in report.comparisons}
    assert checked[f"{settings.kafka.topics.results} = journal"] == report.position - emptied


async def rows_of(settings: Settings, query: str) -> AsyncIterator[Any]:
    async with connected(settings) as database:
        for row in await database.fetch(query):
            yield row


@pytest.mark.timeout(SECONDS + 300)
async def test_under_load_there_is_no_false_alarm(settings: Settings, history: Service) -> None:
    stop = asyncio.Event()

    async def load() -> None:
        commands = RandomCommands(3, 200)
        while not stop.is_set():
            await publish(settings, commands.commands(300))
            await asyncio.sleep(0)

    loading = asyncio.create_task(load())
    process, rounds, first, position = psutil.Process(), 0, 0, 0
    handles, resident_mb = list[int](), list[float]()
    until_s = time.monotonic() + SECONDS
    try:
        while rounds < ROUNDS or time.monotonic() < until_s:
            report = await look(settings)
            assert report.verdict is Verdict.EQUAL, report
            rounds, position, first = rounds + 1, report.position, first or report.position
            handles.append(process.num_fds())
            resident_mb.append(process.memory_info().rss / 2**20)
    finally:
        stop.set()
        await loading
    assert position > first + 300
    # Worker, relay and load are in this process, too: their caches fill up, and their connections come and go.
    warm = max(ROUNDS, rounds // 10)
    assert min(handles[-ROUNDS:]) <= max(handles[:warm]) + 10
    assert min(resident_mb[-ROUNDS:]) <= max(resident_mb[:warm]) + 100
    await wait_until_idle(settings, 60)


@pytest.mark.usefixtures("history")
async def test_again_and_again_it_holds_no_files_and_no_memory(settings: Settings) -> None:
    async def measure() -> tuple[int, int]:
        await look(settings)
        gc.collect()
        return psutil.Process().num_fds(), tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        for _ in range(2):
            await measure()
        handles, allocated = await measure()
        rounds = [await measure() for _ in range(5)]
    finally:
        tracemalloc.stop()
    assert min(each for each, _ in rounds) <= handles
    assert min(each for _, each in rounds[-2:]) <= allocated + KEPT_BYTES_MAX
