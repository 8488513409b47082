"""What the reference data say of a batch, where there is a lot of it."""

import time
from uuid import UUID

import pytest

from org_events.reference import Role
from org_service.domain.access import Partner
from org_service.settings import DatabaseSettings
from org_service.store.engine import Session, create_engine
from org_service.store.relations import find_relations

pytestmark = pytest.mark.integration

MEMBERSHIPS = 10_000
"""Of one user, a program that takes care of many organizations."""
ASKED = 1_000
"""Their organizations in one batch."""


def org(number: int) -> UUID:
    return UUID(int=number)


async def test_a_user_with_thousands_of_memberships_costs_only_what_they_ask_for(
    admin: Session, database: DatabaseSettings
) -> None:
    """Every membership for every organization that is asked about would be millions of rows, and many seconds."""
    await admin.execute(
        "INSERT INTO membership SELECT 'user-' || n, gen_random_uuid(), 'user', now(), true "
        f"FROM generate_series(1, {20 * MEMBERSHIPS}) n"
    )
    await admin.execute(
        "INSERT INTO membership SELECT 'bot', lpad(to_hex(n), 32, '0')::uuid, 'user', now(), true "
        f"FROM generate_series(1, {MEMBERSHIPS}) n"
    )
    await admin.execute("ANALYZE membership")
    await admin.execute(
        "INSERT INTO partnership "
        "SELECT lpad(to_hex(partner), 32, '0')::uuid, lpad(to_hex(n), 32, '0')::uuid, 'support' "
        "FROM generate_series(5000, 5002) partner, generate_series(1, 300) n"
    )
    engine = create_engine(database, "worker")
    async with engine.connect() as conn:
        await find_relations(conn, {("bot", org(1))})
        asked = {("bot", org(number)) for number in range(1, ASKED + 1)}
        found, took_s = await find_relations(conn, asked), float("inf")
        for _ in range(5):  # the machine may be busy with others
            began = time.perf_counter()
            await find_relations(conn, asked)
            took_s = min(took_s, time.perf_counter() - began)
    await engine.dispose()
    assert set(found.memberships["bot"]) == {org(number) for number in (*range(1, ASKED + 1), *range(5000, 5003))}
    assert found.partnerships[org(300)] == [Partner(org(n), Role.SUPPORT, False) for n in range(5000, 5003)]
    print(f"{took_s:.2f} s")
    assert took_s < 0.5
