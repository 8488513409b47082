"""What became of a command, as it is found."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.domain.outcomes import KnownOutcome, Undecided
from org_service.store import accepted, outcomes
from org_service.store.engine import Session
from tests.integration.store.rows import ACME, AT, insert_journal, insert_parked

pytestmark = pytest.mark.integration

OTHER = UUID("0195a000-0000-7000-8000-000000000002")
DIGEST = b"\x01" * 32
"""Of what `rows` inserts."""


async def test_an_answer_comes_from_the_journal_first(admin: Session, edge: AsyncConnection) -> None:
    problem = '{"status":409}'
    command_id = await insert_journal(
        admin, 4, event_type=None, outcome="rejected", code=409, after=None, problem=problem, version=3
    )
    await insert_parked(admin, 1, command_id=command_id, recorded_at=AT - timedelta(seconds=1))
    await accepted.remember(edge, command_id, "ann", ACME, AT - timedelta(seconds=2))
    assert await outcomes.find(edge, command_id) == KnownOutcome(
        command_id=command_id,
        position=4,
        org_id=ACME,
        version=3,
        outcome="rejected",
        code=409,
        request_digest=DIGEST,
        command_partition=2,
        command_offset=104,
        event_type=None,
        after=None,
        problem=problem,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        recorded_at=AT,
        actor="user:7",
        changed='["domain"]',
    )
    applied = await insert_journal(admin, 5, after='{"id":"1"}')
    known = await outcomes.find(edge, applied)
    assert isinstance(known, KnownOutcome)
    assert (known.outcome, known.code, known.version, known.after) == ("applied", 200, 5, '{"id":"1"}')


async def test_a_parked_command_is_answered_as_parked_while_it_is_open(admin: Session, edge: AsyncConnection) -> None:
    command_id = uuid4()
    for offset in (1, 2):
        await insert_parked(admin, offset, command_id=command_id)
    answer = Undecided(command_id, ACME, "parked", None, DIGEST, AT)
    assert await outcomes.find(edge, command_id) == answer
    later = AT + timedelta(seconds=1)
    await accepted.remember(edge, command_id, "ann", ACME, later)
    assert await outcomes.find(edge, command_id) == answer._replace(actor="ann")
    await admin.execute("UPDATE parked SET state = 'released'")
    assert await outcomes.find(edge, command_id) == Undecided(command_id, ACME, "pending", "ann", None, later)


async def test_an_accepted_command_stays_with_who_sent_it_first(edge: AsyncConnection) -> None:
    command_id = uuid4()
    assert await outcomes.find(edge, command_id) is None
    await accepted.remember(edge, command_id, "ann", ACME, AT)
    await accepted.remember(edge, command_id, "bob", OTHER, AT + timedelta(days=1))
    assert await outcomes.find(edge, command_id) == Undecided(command_id, ACME, "pending", "ann", None, AT)


async def test_an_accepted_command_that_kafka_lost_is_expired_until_it_is_sent_again(
    admin: Session, edge: AsyncConnection
) -> None:
    """It would be pending for a fortnight, and nobody would send it again."""
    command_ids = [uuid4() for _ in range(5)]
    for offset, command_id in enumerate(command_ids):
        await accepted.remember(edge, command_id, "ann", ACME, AT, partition=1, offset=offset)
    note = "INSERT INTO lost_range (topic, topic_id, partition, from_offset, to_offset, why, noticed_at) VALUES "
    now = datetime.now(UTC)
    await admin.execute(f"{note} ('c', $1, 1, 1, 3, 'expired', $2), ('c', $1, 2, 0, 9, 'expired', $2)", ACME, now)
    assert await fates(edge, command_ids) == ["pending", "expired", "expired", "pending", "pending"]
    # These offsets were given out again: what lies there now is about to be decided.
    await admin.execute(f"{note} ('c', $1, 1, 3, NULL, 'recreated', $2)", ACME, now)
    assert await fates(edge, command_ids[3:]) == ["pending", "pending"]
    await admin.execute("UPDATE lost_range SET noticed_at = $1 WHERE why = 'recreated'", now - timedelta(minutes=2))
    assert await fates(edge, command_ids[3:]) == ["expired", "expired"]
    await accepted.remember(edge, command_ids[1], "ann", ACME, now + timedelta(seconds=1), partition=1, offset=2)
    assert await fates(edge, command_ids[1:2]) == ["pending"]


async def fates(edge: AsyncConnection, command_ids: Sequence[UUID]) -> list[str]:
    answers = [await outcomes.find(edge, each) for each in command_ids]
    return [answer.status if isinstance(answer, Undecided) else "" for answer in answers]


async def test_accepted_commands_are_forgotten_after_a_fortnight_some_at_a_time(
    admin: Session, edge: AsyncConnection
) -> None:
    old = [(uuid4(), "ann", ACME, AT + timedelta(seconds=number)) for number in range(150)]
    await admin.copy_records_to_table(
        "accepted_command", records=old, columns=("command_id", "actor", "org_id", "accepted_at")
    )
    day = timedelta(days=1)
    await accepted.remember(edge, uuid4(), "ann", ACME, AT + 14 * day)
    assert await admin.fetchval("SELECT count(*) FROM accepted_command") == 151
    newest = old[-1][0]
    await accepted.remember(edge, newest, "ann", ACME, AT + 15 * day)
    assert await admin.fetchval("SELECT count(*) FROM accepted_command") == 51
    await accepted.remember(edge, newest, "ann", ACME, AT + 15 * day)
    left = await admin.fetch("SELECT command_id FROM accepted_command ORDER BY accepted_at")
    assert len(left) == 2
    assert left[0][0] == newest
