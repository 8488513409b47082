"""What a user is shown, rule by rule."""

import asyncio
import time
from datetime import timedelta
from itertools import product
from typing import Any, get_args
from unittest.mock import AsyncMock
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from org_events.reference import Role
from org_service.domain.access import AccessKind
from org_service.domain.organization import StoredOrganization
from org_service.errors import RetryError
from org_service.settings import DatabaseSettings
from org_service.store import directory, lists
from org_service.store import engine as engines
from org_service.store.directory import Entry, Listing
from org_service.store.engine import Session, create_engine
from org_service.store.failures import classify
from tests.integration.store.conftest import POLICY
from tests.integration.store.rows import ACME, AT, insert, insert_organization

pytestmark = pytest.mark.integration

OTHER = UUID("0195a000-0000-7000-8000-000000000002")
THIRD = UUID("0195a000-0000-7000-8000-000000000003")
PARTNER = UUID("0195a000-0000-7000-8000-000000000009")
EVERYTHING = Listing(search=None, access=None, order_by="name", limit=200, after=None)


async def join(admin: Session, user_id: str, org_id: UUID, role: str = "user", **changed: Any) -> None:
    """A membership, active and of one moment unless told otherwise."""
    row = {"user_id": user_id, "org_id": org_id, "role": role, "joined_at": AT, "active": True} | changed
    await insert(admin, "membership", **row)


async def serve(admin: Session, partner_org_id: UUID, org_id: UUID, role: str = "cloud_rep") -> None:
    """A partnership."""
    await insert(admin, "partnership", partner_org_id=partner_org_id, org_id=org_id, role=role)


async def names(edge: AsyncConnection, user_id: str, **wanted: Any) -> list[str]:
    """The names on the first page."""
    return [
        entry.name for entry in (await directory.list_for(edge, user_id, EVERYTHING._replace(**wanted), POLICY)).entries
    ]


async def test_a_member_sees_their_organization_with_their_role(admin: Session, edge: AsyncConnection) -> None:
    await insert_organization(admin, ACME, "Acme", domain="acme.no", version=7)
    await admin.execute('UPDATE organization SET primary_address = \'{"city": "Oslo"}\'')
    await join(admin, "ann", ACME, "support")
    seen = await directory.find(edge, "ann", ACME, POLICY)
    assert seen is not None
    assert seen.organization == StoredOrganization(
        ACME, "Acme", "acme", "acme.no", {"city": "Oslo"}, AT, AT, None, None, 7
    )
    assert seen.access == (Role.SUPPORT, AccessKind.DIRECT, POLICY.denied[Role.SUPPORT], False)
    (entry,) = (await directory.list_for(edge, "ann", EVERYTHING, POLICY)).entries
    assert entry == Entry(ACME, "Acme", "acme.no", False, seen.access, True)


@pytest.mark.parametrize("case", ["missing", "deleted", "invisible", "membership not active"])
async def test_an_invisible_organization_is_none(admin: Session, edge: AsyncConnection, case: str) -> None:
    if case != "missing":
        gone: dict[str, Any] = {"name_key": None, "deleted_at": AT} if case == "deleted" else {}
        await insert_organization(admin, ACME, "Acme", **gone)
    if case != "invisible":
        await join(admin, "ann", ACME, "admin", active=case != "membership not active")
    await insert(admin, "staff", user_id="boss")
    assert await directory.find(edge, "ann", ACME, POLICY) is None
    assert (await directory.find(edge, "boss", ACME, POLICY) is None) is (case in ("missing", "deleted"))
    assert await directory.list_for(edge, "ann", EVERYTHING, POLICY) == ([], None)


async def test_a_missing_organization_costs_the_same_one_statement_as_an_invisible_one(
    admin: Session, edge: AsyncConnection
) -> None:
    await insert_organization(admin, ACME, "Acme")
    sent: list[str] = []
    driver = (await edge.get_raw_connection()).driver_connection
    assert driver is not None
    driver.add_query_logger(lambda record: sent.append(record.query))
    for org_id in (ACME, OTHER):
        assert await directory.find(edge, "ann", org_id, POLICY) is None
    await asyncio.sleep(0)  # the driver logs from its loop
    assert len(sent) == 2
    assert sent[0] == sent[1]


async def test_a_connection_that_broke_is_not_used_again(admin: Session, database: DatabaseSettings) -> None:
    await insert_organization(admin, ACME, "Acme")
    await join(admin, "ann", ACME)
    single = database.model_copy(update={"pool_size": 1})
    engine = create_engine(single, "edge").execution_options(isolation_level="AUTOCOMMIT")
    terminate = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE application_name = 'orgs-edge' AND datname = current_database()"
    )
    for _ in range(2):
        async with engine.connect() as conn:
            assert await directory.find(conn, "ann", ACME, POLICY) is not None
        await admin.execute(terminate)
        errors = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
        with pytest.raises(errors) as broken:
            async with engine.connect() as conn:
                await directory.find(conn, "ann", ACME, POLICY)
        assert isinstance(classify(broken.value), RetryError)
    await engine.dispose()


async def test_a_connection_that_is_about_to_close_is_not_used_again(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver has read why the server ends it, and not yet that it is closed: it refuses to be used."""
    engine = create_engine(database.model_copy(update={"pool_size": 1}), "edge")
    engine = engine.execution_options(isolation_level="AUTOCOMMIT")
    refused = asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")
    async with engine.connect() as conn:
        before = (await conn.get_raw_connection()).driver_connection
        with monkeypatch.context() as patched:
            patched.setattr(asyncpg.Connection, "fetch", AsyncMock(side_effect=refused))
            with pytest.raises(asyncpg.InternalClientError):
                await directory.find(conn, "ann", ACME, POLICY)
    async with engine.connect() as conn:
        assert (await conn.get_raw_connection()).driver_connection is not before
        assert await directory.find(conn, "ann", ACME, POLICY) is None
    await engine.dispose()


async def test_staff_see_every_active_organization_as_admin_and_deactivated_ones_of_their_own(
    admin: Session, edge: AsyncConnection
) -> None:
    await insert(admin, "staff", user_id="boss")
    await insert_organization(admin, ACME, "Acme")
    await insert_organization(admin, OTHER, "Bolt")
    await insert_organization(admin, THIRD, "Closed", deactivated_at=AT)
    await insert_organization(admin, PARTNER, "Dormant", deactivated_at=AT)
    await insert_organization(admin, uuid4(), "Erased", name_key=None, deleted_at=AT)
    await join(admin, "boss", OTHER, "restricted_user")
    await join(admin, "boss", THIRD)
    listed = (await directory.list_for(edge, "boss", EVERYTHING, POLICY)).entries
    denied = POLICY.denied[Role.ADMIN]
    assert [(e.name, e.deactivated, e.access.kind, e.access.role, e.access.denied_actions) for e in listed] == [
        ("Acme", False, AccessKind.STAFF, Role.ADMIN, denied),
        ("Bolt", False, AccessKind.DIRECT, Role.ADMIN, denied),
        ("Closed", True, AccessKind.DIRECT, Role.ADMIN, denied),
    ]
    seen = await directory.find(edge, "boss", PARTNER, POLICY)
    assert seen is not None
    assert seen.access.kind == AccessKind.STAFF
    assert await names(edge, "boss", access=AccessKind.STAFF) == ["Acme"]
    assert await names(edge, "boss", access=AccessKind.DIRECT) == ["Bolt", "Closed"]
    assert await names(edge, "boss", access=AccessKind.PARTNERSHIP) == []


async def test_members_of_a_partner_see_its_clients_with_the_strongest_role_of_the_partnerships(
    admin: Session, edge: AsyncConnection
) -> None:
    for org_id, name in ((ACME, "Acme"), (OTHER, "Other"), (THIRD, "Third"), (PARTNER, "Partner")):
        await insert_organization(admin, org_id, name)
    await join(admin, "ann", PARTNER, "restricted_user")
    await join(admin, "ann", THIRD)
    await serve(admin, PARTNER, ACME, "cloud_rep")
    await serve(admin, THIRD, ACME, "support")
    await serve(admin, OTHER, ACME, "admin")
    seen = await directory.find(edge, "ann", ACME, POLICY)
    assert seen is not None
    assert seen.access == (Role.SUPPORT, AccessKind.PARTNERSHIP, POLICY.denied[Role.SUPPORT], False)
    entries = (await directory.list_for(edge, "ann", EVERYTHING, POLICY)).entries
    assert [(entry.name, entry.access.role) for entry in entries] == [
        ("Acme", Role.SUPPORT),
        ("Partner", Role.RESTRICTED_USER),
        ("Third", Role.USER),
    ]
    assert await names(edge, "ann", access=AccessKind.PARTNERSHIP) == ["Acme"]
    assert await names(edge, "ann", access=AccessKind.DIRECT) == ["Partner", "Third"]
    assert await names(edge, "ann", access=AccessKind.STAFF) == []


@pytest.mark.parametrize("case", ["partner deactivated", "partner deleted", "partner missing", "no longer a member"])
async def test_an_inactive_partner_gives_no_access(admin: Session, edge: AsyncConnection, case: str) -> None:
    await insert_organization(admin, ACME, "Acme")
    gone: dict[str, Any] = {"name_key": None, "deleted_at": AT} if case == "partner deleted" else {}
    if case != "partner missing":
        off = AT if case == "partner deactivated" else None
        await insert_organization(admin, PARTNER, "Partner", deactivated_at=off, **gone)
    await join(admin, "ann", PARTNER, active=case != "no longer a member")
    await serve(admin, PARTNER, ACME)
    assert await directory.find(edge, "ann", ACME, POLICY) is None
    assert "Acme" not in await names(edge, "ann")


async def test_the_default_is_the_earliest_joined_active_membership_of_what_is_there(
    admin: Session, edge: AsyncConnection
) -> None:
    await insert_organization(admin, ACME, "Acme", deactivated_at=AT)
    await insert_organization(admin, OTHER, "Bolt")
    await insert_organization(admin, THIRD, "Gone", name_key=None, deleted_at=AT)
    await insert_organization(admin, PARTNER, "Zen")
    await join(admin, "ann", THIRD, joined_at=AT - timedelta(days=3))
    await join(admin, "ann", PARTNER, joined_at=AT - timedelta(days=2), active=False)
    await join(admin, "ann", OTHER, joined_at=AT)
    await join(admin, "ann", ACME, joined_at=AT)
    entries = (await directory.list_for(edge, "ann", EVERYTHING, POLICY)).entries
    assert [(entry.name, entry.is_default) for entry in entries] == [("Acme", True), ("Bolt", False)]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("AC", ["Acme", "Acre", "Zen"]),
        (" acm ", ["Acme"]),
        ("stra\u00dfe", ["STRASSE 50%"]),
        ("\uff33trasse 50%", ["STRASSE 50%"]),
        ("%", ["%_\\"]),
        ("_", []),
        ("%_\\", ["%_\\"]),
        ("ACE.", ["Zen"]),
        ("me", []),
        ("", ["%_\\", "Acme", "Acre", "STRASSE 50%", "Zen"]),
        (" \t", ["%_\\", "Acme", "Acre", "STRASSE 50%", "Zen"]),
        ("a\0", []),
        ("\ud800", []),
        ("\U0010ffff", []),
        ("a\ud7ff", []),
    ],
)
@pytest.mark.parametrize("user", ["member", "boss"])
async def test_a_search_finds_what_begins_like_it_by_name_or_domain_in_any_case(
    admin: Session, edge: AsyncConnection, search: str, found: list[str], user: str
) -> None:
    await insert(admin, "staff", user_id="boss")
    for name, domain in (("Acme", None), ("Acre", "xx.no"), ("Zen", "ace.no"), ("STRASSE 50%", None), ("%_\\", None)):
        org_id = uuid4()
        await insert_organization(admin, org_id, name, domain=domain)
        await join(admin, "member", org_id)
    assert await names(edge, user, search=search) == found


@pytest.mark.parametrize(
    ("order_by", "after"),
    [
        ("name", "a\0"),
        ("name", "\udc00"),
        ("created_at", "acme"),
        ("created_at", "2026-03-01T12:00:00"),
        ("-created_at", ""),
    ],
)
async def test_a_cursor_of_another_order_is_a_value_error(
    edge: AsyncConnection, order_by: lists.OrderBy, after: str
) -> None:
    with pytest.raises(ValueError):
        await directory.list_for(edge, "ann", EVERYTHING._replace(order_by=order_by, after=(after, ACME)), POLICY)


ROWS_ENOUGH = 20_000
"""For any index to be cheaper than what reads everything."""


@pytest.mark.parametrize("order_by", get_args(lists.OrderBy))
async def test_every_list_is_read_by_its_index(admin: Session, edge: AsyncConnection, order_by: lists.OrderBy) -> None:
    rows = [
        (UUID(int=n), f"N{n}", f"n{n}", f"d{n}.no", None, AT + timedelta(seconds=n), AT, None, None, 1)
        for n in range(ROWS_ENOUGH)
    ]
    await admin.copy_records_to_table("organization", records=rows)
    await admin.copy_records_to_table(
        "membership", records=[(f"u{n}", UUID(int=n), "user", AT, True) for n in range(ROWS_ENOUGH)]
    )
    await admin.copy_records_to_table(
        "partnership", records=[(UUID(int=n), UUID(int=n + 1), "user") for n in range(ROWS_ENOUGH)]
    )
    await admin.execute("ANALYZE")
    driver = (await edge.get_raw_connection()).driver_connection
    assert driver is not None
    ordered = "organization_name_key_key" if order_by.endswith("name") else "organization_created_at_idx"
    for searching, access, following in product((False, True), (None, *AccessKind), (False, True)):
        shape = lists.Shape(searching, access, order_by, following)
        for made in (lists.list_related, lists.list_active):
            statement = made(shape)
            await driver.execute(f"PREPARE listed AS {statement.text}")
            nulls = ", ".join("NULL" for _ in statement.names)
            plan = "\n".join(row[0] for row in await driver.fetch(f"EXPLAIN EXECUTE listed({nulls})"))
            await driver.execute("DEALLOCATE listed")
            assert "Seq Scan" not in plan, plan
            assert (ordered in plan) is (made is lists.list_active), plan
            assert ("organization_domain_idx" in plan) is (made is lists.list_active and searching), plan


async def test_no_plan_outlives_its_time(database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "PLAN_AGE_MAX_S", 0.05)
    engine = create_engine(database.model_copy(update={"pool_size": 1}), "edge")
    deadline = time.monotonic() + 10
    async with engine.connect() as conn:
        first = await conn.scalar(select(func.pg_backend_pid()))
    now = first
    while now == first and time.monotonic() < deadline:
        async with engine.connect() as conn:
            now = await conn.scalar(select(func.pg_backend_pid()))
    await engine.dispose()
    assert now != first
