"""What is parked is released in order, discarded for good, or edited; and nothing else is touched."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from org_events.commands import CreateOrganization
from org_service.apply.release import Releaser
from org_service.auth.policy import load_policy
from org_service.domain.outcomes import KnownOutcome
from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError
from org_service.operate import runs
from org_service.operate.parked import DiscardParked, ReleaseParked
from org_service.operate.parked_selection import ParkedSelection, find
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.database import Database
from org_service.store.operations import Operation
from tests.integration.operate.parking import (
    apply,
    discard,
    failing_for,
    find_outcome,
    record,
    release,
    renamed,
    rows,
)
from tests.support.killing import run_process_killed_at
from tests.support.probing import once, probing
from tests.support.processes import CommandProcess
from tests.support.records import FakeRecord
from tests.support.waiting import until

pytestmark = pytest.mark.integration


async def names(database: asyncpg.Connection) -> list[tuple[Any, ...]]:
    found = await database.fetch("SELECT name, version FROM organization ORDER BY name")
    return [tuple(row) for row in found]


async def decided(database: asyncpg.Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await database.fetch("SELECT outcome, code FROM journal ORDER BY position")]


async def test_a_queue_is_decided_in_order_and_its_rows_name_the_run(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    done = await release(settings, org_ids=(queue,))
    assert (done.state, done.items, done.counts) == (OperationState.DONE, 3, {"applied": 3})
    assert await names(database) == [("Acme 3", 3)]
    kept = await rows(database, "state, operation_id, ended_at IS NOT NULL")
    assert kept == [("released", done.id, True)] * 3


async def test_one_record_releases_the_queue_that_it_is_in(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    last = await database.fetchval("SELECT max(id) FROM parked")
    done = await release(settings, ids=(last,))
    assert done.counts == {"applied": 3}
    with pytest.raises(PreconditionError, match=f"record {last} was released already"):
        await release(settings, ids=(last,))
    assert await names(database) == [("Acme 3", 3)]


async def test_what_fails_again_says_why_stays_in_place_and_is_exhausted_after_three_releases(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    for attempt in range(1, 4):
        with failing_for([queue], KeyError):
            done = await release(settings, org_ids=(queue,))
        assert done.counts == {"failed again": 1, "waiting behind a failed one": 2}
        (first, *others) = await rows(database, "reason, attempts, state, detail")
        assert first[:3] == ("handler_raised", 1 + attempt, "open")
        assert first[3].startswith("KeyError in ")
        assert [each[:3] for each in others] == [("queued_behind", 1, "open")] * 2
    with pytest.raises(PreconditionError, match=r"1 organizations are left out, .* \(exhausted\): discard or edit it"):
        await release(settings, org_ids=(queue,))
    await apply(settings, record(settings, renamed(queue, "Later")[0]))
    assert len(await rows(database)) == 4
    first_id = await database.fetchval("SELECT min(id) FROM parked")
    assert (await discard(settings, ids=(first_id,))).counts == {"discarded": 1, "rejected": 3}
    assert await decided(database) == [("rejected", 500), *[("rejected", 404)] * 3]


async def test_a_queue_goes_on_up_to_the_command_that_fails(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    def strike(request: Any) -> None:
        if getattr(request.command, "name", None) == "Acme 2":
            raise LookupError

    with probing("apply.before_decide", strike):
        done = await release(settings, org_ids=(queue,))
    assert done.counts == {"applied": 1, "failed again": 1, "waiting behind a failed one": 1}
    assert await rows(database) == [
        ("handler_raised", "released", 1),
        ("handler_raised", "open", 2),
        ("queued_behind", "open", 1),
    ]
    assert (await release(settings, org_ids=(queue,))).counts == {"applied": 2}
    assert await names(database) == [("Acme 3", 3)]


async def test_data_that_the_database_refuses_again_stay_alone_with_its_code(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    other = uuid4()
    with failing_for([other]):
        await apply(settings, record(settings, CreateOrganization(org_id=other, name="Globex")))
    await database.execute("ALTER TABLE organization ADD CHECK (name <> 'Acme 3')")
    done = await release(settings)
    assert done.counts == {"applied": 3, "failed again": 1}
    assert await names(database) == [("Acme 2", 2), ("Globex", 1)]
    assert (await rows(database, "reason, detail"))[2] == ("data_refused", "SQLSTATE 23514 (CheckViolationError)")


async def test_a_command_behind_an_open_one_is_never_decided_first(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    """Whoever asks for it: queues are cut into steps, and a step into what the database accepts."""

    async def hear(*_: object) -> None:
        pass

    last = await database.fetchval("SELECT max(id) FROM parked")
    assert last is not None
    policy, run_id = load_policy(settings.auth), uuid4()
    async with Database(settings.database, "operate", direct=True).begin() as conn:
        stored = await find(conn, last)
    operator = Database(settings.database, "operate")
    releaser = Releaser(operator, policy, settings.worker, run_id, trusts=True, note=hear, done=hear)
    await releaser.release([stored])
    await operator.close()
    assert await decided(database) == []
    assert await rows(database, "reason, attempts, state") == [
        ("handler_raised", 1, "open"),
        ("queued_behind", 1, "open"),
        ("queued_behind", 1, "open"),
    ]


async def test_a_discard_in_the_middle_of_a_queue_leaves_it_waiting(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    (_, middle, _) = [row[0] for row in await rows(database, "id")]
    assert (await discard(settings, ids=(middle,))).counts == {"discarded": 1}
    assert await rows(database, "state") == [("open",), ("discarded",), ("open",)]
    assert (await release(settings, org_ids=(queue,))).counts == {"applied": 2}
    assert await names(database) == [("Acme 3", 2)]


@pytest.mark.parametrize("exists", [True, False])
async def test_a_command_that_comes_during_a_release_is_decided_after_the_queue(
    settings: Settings, database: asyncpg.Connection, queue: UUID, exists: bool
) -> None:
    """With a row of the organization to lock, and without one."""
    if exists:
        await release(settings, org_ids=(queue,))
        with failing_for([queue]):
            await apply(settings, *(record(settings, each) for each in renamed(queue, "Acme 4", "Acme 5")))
    applying: list[asyncio.Task[None]] = []

    async def new_command() -> None:
        applying.append(asyncio.create_task(apply(settings, record(settings, renamed(queue, "Last")[0]))))
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    with probing("operate.before_commit", once(new_command)):
        await release(settings, org_ids=(queue,))
    await asyncio.gather(*applying)
    assert {state for (state,) in await rows(database, "state")} == {"released"}
    assert await names(database) == [("Last", 6 if exists else 4)]


async def test_a_release_waits_for_a_worker_that_is_about_to_queue_behind(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    """Of an organization without a row: else what it queues would be left there by the run."""
    releasing: list[asyncio.Task[Operation]] = []

    async def strike() -> None:
        releasing.append(asyncio.create_task(release(settings)))
        await until(lambda: database.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))

    with probing("apply.before_positions", once(strike)):
        await apply(settings, record(settings, renamed(queue, "Last")[0]))
    assert (await releasing[0]).counts == {"applied": 4}
    assert await names(database) == [("Last", 4)]


async def test_a_command_that_queued_since_the_plan_is_decided_by_the_same_run(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    tool = await ReleaseParked.make(settings, ParkedSelection(org_ids=(queue,)))
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    await apply(settings, record(settings, renamed(queue, "Since")[0]))
    assert (await runs.run(settings, planned.id)).counts == {"applied": 4}
    assert await names(database) == [("Since", 4)]


async def test_a_command_that_found_no_organization_looks_again_where_a_release_made_it(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    """Between the locks of a worker and its look at what is parked."""

    async def strike() -> None:
        await release(settings, org_ids=(queue,))

    with probing("apply.after_lock", once(strike)):
        await apply(settings, record(settings, renamed(queue, "Late")[0]))
    assert await decided(database) == [("applied", 200)] * 4
    assert await names(database) == [("Late", 4)]


async def test_a_discard_is_final_and_the_queue_goes_on(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    await release(settings, org_ids=(queue,))
    with failing_for([queue]):
        await apply(settings, *(record(settings, each) for each in renamed(queue, "Bad", "Good")))
    command_id = await database.fetchval("SELECT command_id FROM parked WHERE state = 'open' ORDER BY id LIMIT 1")
    done = await discard(settings, command_ids=(command_id,))
    assert done.counts == {"discarded": 1, "applied": 1}
    assert await names(database) == [("Good", 4)]
    assert command_id is not None
    found = await find_outcome(settings, command_id)
    assert isinstance(found, KnownOutcome)
    assert (found.outcome, found.code) == ("rejected", 500)
    assert '"urn:orgs:problem:discarded"' in (found.problem or "")


async def test_a_whole_queue_is_discarded_without_deciding_any_of_it(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    done = await discard(settings, org_ids=(queue,))
    assert (done.items, done.counts) == (3, {"discarded": 3})
    assert await decided(database) == [("rejected", 500)] * 3


@pytest.mark.parametrize("point", ["operate.after_take", "operate.before_commit", "operate.after_commit"])
@pytest.mark.parametrize("what", ["release", "discard"])
async def test_a_run_whose_process_was_killed_ends_as_if_it_had_not_been(
    settings: Settings, database: asyncpg.Connection, queue: UUID, point: Point, what: str
) -> None:
    settings = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    first = await database.fetchval("SELECT min(id) FROM parked")
    assert first is not None
    tool = await (ReleaseParked if what == "release" else DiscardParked).make(settings, ParkedSelection(ids=(first,)))
    # A step may have one record, so that much is left to be done.
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test", rate_per_second_max=1.0)
    await run_process_killed_at(settings, planned.id, point)
    await runs.set_rate(settings, planned.id, None)
    done = await runs.run(settings, planned.id)
    if what == "release":
        assert (done.state, done.counts) == (OperationState.DONE, {"applied": 3})
        assert await names(database) == [("Acme 3", 3)]
    else:
        assert (done.state, done.counts) == (OperationState.DONE, {"discarded": 1, "rejected": 2})
        assert await decided(database) == [("rejected", 500), ("rejected", 404), ("rejected", 404)]


async def test_of_two_processes_that_start_one_plan_one_runs_it(
    settings: Settings, database: asyncpg.Connection, queue: UUID, tmp_path: Path
) -> None:
    tool = await ReleaseParked.make(settings, ParkedSelection(org_ids=(queue,)))
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test", rate_per_second_max=1.0)
    both = [CommandProcess(settings, tmp_path, "run", str(planned.id)) for _ in range(2)]
    ended = {await asyncio.to_thread(each.wait): each.said() for each in both}
    assert sorted(ended) == [0, 1], ended
    assert "it is running, in process" in ended[1] or "the operation is done" in ended[1]
    assert await decided(database) == [("applied", 200)] * 3
    assert await names(database) == [("Acme 3", 3)]


async def test_a_step_that_is_tried_again_is_counted_once(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    async def fail() -> None:
        raise ConnectionResetError

    with probing("operate.before_commit", once(fail)):
        assert (await release(settings, org_ids=(queue,))).counts == {"applied": 3}
    assert await names(database) == [("Acme 3", 3)]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_step_whose_commit_nobody_heard_of_is_not_done_again(
    settings: Settings, database: asyncpg.Connection, queue: UUID, fails: bool
) -> None:
    """Nor does what failed in it use up a second try."""

    async def lose_the_answer() -> None:
        raise ConnectionResetError

    with failing_for([queue] if fails else []), probing("operate.after_commit", once(lose_the_answer)):
        done = await release(settings, org_ids=(queue,))
    if fails:
        assert done.counts == {"failed again": 1, "waiting behind a failed one": 2}
        assert [attempts for (attempts,) in await rows(database, "attempts")] == [2, 1, 1]
    else:
        assert done.counts == {"applied": 3}
        assert await decided(database) == [("applied", 200)] * 3


async def test_what_waits_behind_a_failed_command_uses_up_no_try_whatever_our_code_says_of_it(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    def strike(record: Any) -> None:
        if b"Acme 3" in record.value:
            raise LookupError

    with failing_for([queue]), probing("apply.before_read", strike):
        assert (await release(settings)).counts == {"failed again": 1, "waiting behind a failed one": 2}
    assert [attempts for (attempts,) in await rows(database, "attempts")] == [2, 1, 1]


async def test_a_build_that_fails_on_everything_releases_nothing_and_uses_up_no_try(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    before = await rows(database)
    with probing("apply.before_decide", lambda _: 1 / 0):
        failed = await release(settings)
    assert failed.state == OperationState.FAILED
    assert "fails even on commands that are known to be good" in (failed.error or "")
    assert await rows(database) == before


@pytest.mark.parametrize(
    ("role", "outcome"), [(None, ("rejected", 404)), ("user", ("rejected", 403)), ("admin", ("applied", 200))]
)
async def test_a_command_has_the_rights_that_its_user_has_now(
    settings: Settings, database: asyncpg.Connection, role: str | None, outcome: tuple[str, int]
) -> None:
    org_id = uuid4()
    await apply(settings, record(settings, CreateOrganization(org_id=org_id, name="Acme")))
    with failing_for([org_id]):
        await apply(settings, *(record(settings, each) for each in renamed(org_id, "Mine")))
    await database.execute("UPDATE parked SET actor = 'ann', authenticated_by = 'token'")
    if role is not None:
        await database.execute("INSERT INTO membership VALUES ('ann', $1, $2, now(), true)", org_id, role)
    await release(settings)
    assert (await decided(database))[-1] == outcome
    assert await database.fetchval("SELECT actor FROM journal ORDER BY position DESC LIMIT 1") == "ann"


@pytest.mark.parametrize(("token", "outcome"), [(None, ("applied", 200)), (b"Bearer x", ("rejected", 401))])
async def test_what_could_not_be_read_is_read_again_and_nobody_acts_by_a_token_that_was_not_verified(
    settings: Settings, database: asyncpg.Connection, token: bytes | None, outcome: tuple[str, int]
) -> None:
    org_id, command_id = uuid4(), uuid4()
    made = record(settings, CreateOrganization(org_id=org_id, name="Acme"), command_id)
    if token is not None:
        made = dataclasses.replace(made, headers=[*made.headers, ("authorization", token)])
    with probing("apply.before_read", lambda _: 1 / 0):
        await apply(settings, made)
        done = await release(settings)  # fails again, and forgets nothing of what it must know
    assert done.state == OperationState.FAILED or done.counts == {"failed again": 1}
    done = await release(settings)
    assert await decided(database) == [outcome]
    assert await rows(database, "state") == [("released",)]
    assert done.counts == {outcome[0]: 1}


async def test_what_cannot_be_read_is_exhausted_after_three_releases_too(
    settings: Settings, database: asyncpg.Connection
) -> None:
    await apply(settings, *(FakeRecord(b"k", b"\xff", [], topic=settings.kafka.topics.commands) for _ in range(2)))
    first = await database.fetchval("SELECT min(id) FROM parked")
    for _ in range(3):
        assert (await release(settings, ids=(first,))).counts == {"failed again": 1}
    with pytest.raises(PreconditionError, match="1 records are left out, because they were released 3 times"):
        await release(settings, ids=(first,))
    assert (await release(settings)).counts == {"failed again": 1}
    assert await rows(database, "attempts") == [(4,), (2,)]


async def test_what_is_parked_after_the_plan_is_not_meant(settings: Settings, database: asyncpg.Connection) -> None:
    """Of other organizations, and what is in no queue: the run does what was planned."""
    first, second = uuid4(), uuid4()

    async def park(org_id: UUID) -> None:
        bad = FakeRecord(b"k", b"\xff", [], topic=settings.kafka.topics.commands)
        with failing_for([org_id]):
            await apply(settings, record(settings, CreateOrganization(org_id=org_id, name=str(org_id))), bad)

    await park(first)
    tool = await ReleaseParked.make(settings, ParkedSelection())
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    await park(second)
    assert (await runs.run(settings, planned.id)).counts == {"applied": 1, "failed again": 1}
    assert await rows(database, "attempts, state") == [(1, "released"), (2, "open"), (1, "open"), (1, "open")]


async def test_a_released_command_keeps_the_digest_by_which_its_duplicates_are_known(
    settings: Settings, database: asyncpg.Connection, queue: UUID
) -> None:
    """Whatever a later build would make of the same bytes."""
    await database.execute("UPDATE parked SET request_digest = '\\x01'")
    await release(settings)
    assert await database.fetchval("SELECT array_agg(DISTINCT request_digest) FROM journal") == [b"\x01"]


async def test_what_is_no_command_is_only_discarded(settings: Settings, database: asyncpg.Connection) -> None:
    bad = FakeRecord(b"k", b"\xff", [], topic=settings.kafka.topics.commands)
    long = dataclasses.replace(bad, value=bytes(200_000), offset=bad.offset + 1)
    fact = dataclasses.replace(bad, topic=settings.kafka.topics.memberships, offset=bad.offset + 2)
    await apply(settings, bad, long, fact)
    done = await release(settings)
    assert (done.items, done.counts) == (1, {"failed again": 1})
    with pytest.raises(PreconditionError, match="an old fact would overwrite newer ones"):
        await release(settings, topic=settings.kafka.topics.memberships)
    assert (await discard(settings)).counts == {"discarded": 3}
    assert {state for (state,) in await rows(database, "state")} == {"discarded"}
    assert await decided(database) == []
