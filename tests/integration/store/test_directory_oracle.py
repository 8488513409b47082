"""What a user is shown, against an oracle that looks at every organization."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple, get_args
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from org_events.reference import Role
from org_service.domain.access import AccessKind, Partner, UserMembership, decide_access
from org_service.domain.organization import StoredOrganization, name_key
from org_service.store import directory, lists
from org_service.store.directory import Entry, Listing
from org_service.store.engine import Session
from tests.integration.store.conftest import POLICY
from tests.integration.store.rows import AT
from tests.support.default_organization import default_organization

pytestmark = pytest.mark.integration


class World(NamedTuple):
    """All there is, as the oracle knows it."""

    organizations: list[StoredOrganization]
    memberships: dict[str, dict[UUID, UserMembership]]
    partnerships: list[tuple[UUID, UUID, Role]]
    staff: set[str]

    def seen(self, user_id: str, organization: StoredOrganization) -> directory.Seen | None:
        """One organization as a user sees it."""
        active = {each.id for each in self.organizations if each.deleted_at is None and each.deactivated_at is None}
        access = decide_access(
            organization,
            memberships=self.memberships.get(user_id, {}),
            partnerships=[
                Partner(partner, role, partner in active)
                for partner, client, role in self.partnerships
                if client == organization.id
            ],
            staff=user_id in self.staff,
            policy=POLICY,
        )
        return None if access is None else directory.Seen(organization, access)

    def listed(self, user_id: str, search: str | None, access: AccessKind | None, order_by: str) -> list[Entry]:
        """The whole list of a user."""
        own = self.memberships.get(user_id, {})
        there = {each.id for each in self.organizations if each.deleted_at is None}
        default = default_organization(membership for membership in own.values() if membership.org_id in there)
        seen = [each for each in (self.seen(user_id, one) for one in self.organizations) if each is not None]
        seen = [
            each for each in seen if each.organization.deactivated_at is None or each.access.kind != AccessKind.STAFF
        ]
        seen = [each for each in seen if access in (None, each.access.kind)]
        prefix = name_key(search or "")
        seen = [
            each for each in seen if any(text.startswith(prefix) for text in each.organization[2:4] if text is not None)
        ]
        key: Callable[[directory.Seen], Any] = {
            "name": lambda each: each.organization.name_key.encode(),
            "created_at": lambda each: (each.organization.created_at, each.organization.id.int),
        }[order_by.removeprefix("-")]
        return [
            Entry(one.id, one.name, one.domain, one.deactivated_at is not None, access, one.id == default)
            for one, access in sorted(seen, key=key, reverse=order_by.startswith("-"))
        ]


USERS = ("ann", "bob", "boss", "chief", "nobody")
LISTS_COMPARED = 100
"""Of 480 in each world; over all worlds each is compared about twice."""
STARTS = ("a", "ab", "abc", "b", "B\u00e5", "\U0001f600", "%", "_a")


def random_world(seed: int) -> World:
    """Few of everything, so that everything meets: equal times, shared prefixes, chains of partners."""
    numbers = random.Random(seed)
    organizations: list[StoredOrganization] = []
    for number in range(60):
        name = f"{numbers.choice(STARTS)}{numbers.choice(('', 'b', ' c'))}{number}"
        deleted = AT if numbers.random() < 0.15 else None
        deactivated = AT if numbers.random() < 0.2 else None
        domain = numbers.choice((None, f"a{number}.no", f"ab{number}.no", f"{number}.b.no"))
        created = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=numbers.randrange(20))
        key = None if deleted else name_key(name)
        org_id = UUID(int=numbers.getrandbits(128))
        organizations.append(StoredOrganization(org_id, name, key, domain, None, created, AT, deactivated, deleted, 1))
    ids = [organization.id for organization in organizations] + [UUID(int=numbers.getrandbits(128))]
    memberships = {
        user: {
            org_id: UserMembership(
                org_id,
                numbers.choice(list(Role)),
                AT + timedelta(seconds=numbers.randrange(4)),
                numbers.random() < 0.7,
            )
            for org_id in numbers.sample(ids, numbers.randrange(15))
        }
        for user in USERS[:-2]
    }
    pairs = {(numbers.choice(ids[:12]), numbers.choice(ids)) for _ in range(60)}
    partnerships = [(partner, client, numbers.choice(list(Role))) for partner, client in sorted(pairs)]
    return World(organizations, memberships, partnerships, {"boss", "chief"})


async def copy(admin: Session, world: World) -> None:
    """Put a world into the tables."""
    await admin.copy_records_to_table("organization", records=world.organizations)
    rows = [(user, *row) for user, memberships in world.memberships.items() for row in memberships.values()]
    await admin.copy_records_to_table("membership", records=rows)
    await admin.copy_records_to_table("partnership", records=world.partnerships)
    await admin.copy_records_to_table("staff", records=[(user,) for user in world.staff])


@pytest.fixture(params=[1, 5_000], ids=["walks one", "walks all"])
def walked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far a search reads in page order before it fetches all it finds."""
    monkeypatch.setattr(lists, "NAMES_WALKED_MAX", request.param)
    monkeypatch.setattr(lists, "TIMES_WALKED_MAX", request.param)
    lists.list_active.cache_clear()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.usefixtures("walked")
async def test_pages_together_are_what_an_oracle_lists(admin: Session, edge: AsyncConnection, seed: int) -> None:
    world = random_world(seed)
    await copy(admin, world)
    numbers = random.Random(seed)
    searches = (None, "a", "AB", "b\u00e5", "zz", "%")
    asked = list(product(USERS, searches, (None, *AccessKind), get_args(lists.OrderBy)))
    for user, search, access, order_by in numbers.sample(asked, LISTS_COMPARED):
        expected = world.listed(user, search, access, order_by)
        listing = Listing(search, access, order_by, numbers.randrange(1, 30), None)
        pages = [await directory.list_for(edge, user, listing, POLICY)]
        while pages[-1].after is not None:
            assert len(pages[-1].entries) == listing.limit
            pages.append(await directory.list_for(edge, user, listing._replace(after=pages[-1].after), POLICY))
        assert [entry for page in pages for entry in page.entries] == expected, listing
        assert len(pages) == max(1, -(-len(expected) // listing.limit))


@pytest.mark.parametrize("seed", range(3))
async def test_an_organization_is_found_as_the_oracle_sees_it(admin: Session, edge: AsyncConnection, seed: int) -> None:
    world = random_world(seed)
    await copy(admin, world)
    for user, organization in product(USERS, world.organizations):
        assert await directory.find(edge, user, organization.id, POLICY) == world.seen(user, organization)
