from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.domain.reasons import ParkedState
from org_service.settings import DatabaseSettings
from org_service.store import journal, organizations, parked_queues
from org_service.store.engine import Session, create_engine
from org_service.store.parked_queues import ParkedFilter, ParkedRecord
from tests.integration.store.rows import ACME, AT, insert_journal, insert_organization, insert_parked

pytestmark = pytest.mark.integration

OTHER = UUID("0195a000-0000-7000-8000-000000000002")
THIRD = UUID("0195a000-0000-7000-8000-000000000003")


@pytest.fixture
async def reader(database: DatabaseSettings) -> AsyncIterator[AsyncConnection]:
    engine = create_engine(database, "reader", direct=True).execution_options(isolation_level="AUTOCOMMIT")
    async with engine.connect() as conn:
        yield conn


@pytest.mark.parametrize("given", [str(ACME), ACME.hex.upper(), "Straße", " STRASSE ", "\uff33trasse"])
async def test_an_organization_is_found_by_id_and_by_its_name_in_any_case(
    admin: Session, reader: AsyncConnection, given: str
) -> None:
    address = {"line1": "Storgata 1", "city": "Oslo", "postal_code": "0001", "country": "NO"}
    await insert_organization(admin, ACME, "Straße", name_key="strasse", domain="a.no")
    await admin.execute(
        "UPDATE organization SET primary_address = $1::text::jsonb",
        '{"line1": "Storgata 1", "city": "Oslo", "postal_code": "0001", "country": "NO"}',
    )
    await insert_organization(admin, OTHER, "Straßen")
    (found,) = await organizations.find_by_id_or_name(reader, given)
    assert (found.id, found.name, found.domain, found.version) == (ACME, "Straße", "a.no", 1)
    assert found.primary_address == address
    assert found.deleted_at is None


async def test_deleted_organizations_are_found_too_after_the_existing_one(
    admin: Session, reader: AsyncConnection
) -> None:
    for place, org_id in enumerate((OTHER, THIRD)):
        at = AT + timedelta(days=place)
        await insert_organization(admin, org_id, "ACME", name_key=None, deleted_at=at, updated_at=at)
    await insert_organization(admin, ACME, "Acme")
    assert [found.id for found in await organizations.find_by_id_or_name(reader, "acme")] == [ACME, THIRD, OTHER]
    assert [found.id for found in await organizations.find_by_id_or_name(reader, str(OTHER))] == [OTHER]


async def test_nothing_is_found_in_an_empty_database(reader: AsyncConnection) -> None:
    assert await organizations.find_by_id_or_name(reader, "acme") == []
    assert await organizations.find_by_id_or_name(reader, str(ACME)) == []
    assert await journal.read_history(reader, ACME, 10) == []
    assert await parked_queues.list_records(reader, ParkedFilter(), 0, 10) == []
    assert await parked_queues.count(reader, ParkedFilter()) == []
    assert await organizations.list_by_id(reader, 10) == []


async def test_organizations_are_listed_in_order_of_id(admin: Session, reader: AsyncConnection) -> None:
    for org_id in (THIRD, ACME, OTHER):
        await insert_organization(admin, org_id, str(org_id))
    assert [found.id for found in await organizations.list_by_id(reader, 2)] == [ACME, OTHER]
    assert [found.id for found in await organizations.list_by_id(reader, 2, OTHER)] == [THIRD]


async def test_a_history_is_the_changes_of_one_organization_in_order(admin: Session, reader: AsyncConnection) -> None:
    created = await insert_journal(
        admin, 1, version=1, command_type="org.create", event_type="org.created", before=None, after='{"name":"A"}'
    )
    await insert_journal(admin, 2, org_id=OTHER, version=1)
    await insert_journal(admin, 3, version=1, event_type=None, outcome="rejected", code=409, changed=None, after=None)
    await insert_journal(
        admin, 4, version=2, command_type="org.delete", event_type="org.deleted", actor=None, after=None
    )
    first, second = await journal.read_history(reader, ACME, 10)
    assert first == journal.HistoryEntry(
        position=1,
        version=1,
        event_type="org.created",
        command_type="org.create",
        command_id=created,
        actor="user:7",
        changed=["domain"],
        before=None,
        after={"name": "A"},
        recorded_at=AT,
    )
    assert (second.version, second.before, second.after, second.actor) == (2, {"domain": None}, None, None)
    assert await journal.read_history(reader, ACME, 1) == [first]
    assert await journal.read_history(reader, ACME, 10, after_version=1) == [second]


async def test_parked_records_are_listed_without_what_they_hold(admin: Session, reader: AsyncConnection) -> None:
    command_id = uuid4()
    await insert_parked(admin, 7, command_id=command_id, actor="ann", authenticated_by="token")
    cut = {"value_bytes": 200_000, "value_sha256": "ab" * 32}
    await insert_parked(admin, 8, org_id=None, command_id=None, reason="unreadable", key=None, **cut)
    await insert_parked(admin, 9, org_id=OTHER, state=ParkedState.RELEASED)

    async def find(**wanted: Any) -> list[ParkedRecord]:
        return await parked_queues.list_records(reader, ParkedFilter(**wanted), 0, 10)

    first, second = await find(state=ParkedState.OPEN)
    assert first == ParkedRecord(
        id=first.id,
        topic="orgs.commands",
        partition=0,
        offset=7,
        broker_time=AT,
        org_id=ACME,
        command_id=command_id,
        reason="handler_raised",
        detail="ZeroDivisionError",
        attempts=1,
        state="open",
        actor="ann",
        authenticated_by="token",
        value_bytes=None,
        value_sha256=None,
        recorded_at=AT,
    )
    assert (second.offset, second.actor, second.reason) == (8, None, "unreadable")
    assert (second.value_bytes, second.value_sha256) == (200_000, "ab" * 32)
    assert [each.offset for each in await find()] == [7, 8, 9]
    assert await parked_queues.list_records(reader, ParkedFilter(), first.id, 1) == [second]
    for mine, theirs in (
        ({"ids": [first.id]}, {"ids": [second.id, 99]}),
        ({"org_ids": [ACME]}, {"org_ids": [THIRD]}),
        ({"command_ids": [command_id]}, {"command_ids": [uuid4()]}),
        ({"loose": False}, {"loose": True}),
        ({"through_id": first.id}, {"through_id": first.id - 1}),
        ({"reason": "handler_raised"}, {"reason": "unreadable"}),
        ({"cause": "ZeroDivisionError"}, {"cause": "ZeroDivision"}),
        ({"from_time": AT}, {"from_time": AT + timedelta(seconds=1)}),
        ({"to_time": AT + timedelta(seconds=1)}, {"to_time": AT}),
    ):
        assert first in await find(state=ParkedState.OPEN, **mine), mine
        assert first not in await find(state=ParkedState.OPEN, **theirs), theirs
    assert await find(state=ParkedState.OPEN, loose=True) == [second]
    assert [each.offset for each in await find(state=ParkedState.RELEASED)] == [9]
    assert await find(exhausted=True) == []


async def test_parked_records_are_counted_by_state_and_reason(admin: Session, reader: AsyncConnection) -> None:
    for offset, state in enumerate(("open", "open", "released")):
        await insert_parked(admin, offset, state=state)
    await insert_parked(admin, 9, reason="unreadable")
    assert await parked_queues.count(reader, ParkedFilter()) == [
        ("open", "handler_raised", "ZeroDivisionError", 2),
        ("open", "unreadable", None, 1),
        ("released", "handler_raised", "ZeroDivisionError", 1),
    ]
