"""Organizations and who belongs where, loaded by COPY: as many as a large platform has, with names as people give them.

Domains follow names, as they do in life: a search that takes them for independent is found out.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

from org_events.reference import Role
from org_service.domain.organization import name_key

USERS_PER_MEMBERSHIP: Final = 0.3
STAFF: Final = [f"staff{number}" for number in range(50)]
_STRIDE: Final = 7_919
"""Between the organizations of one user; prime, so that no user meets one twice."""
_PARTNER_EVERY: Final = 100
_CLIENTS: Final = 10
_NOBODYS_PLACE: Final = 50
"""Of each hundred organizations: no client of any partner."""
_BEGUN: Final = datetime(2021, 1, 1, tzinfo=UTC)
_SYLLABLES: Final = (
    "ba be bo ca co da de di do fa fi fo ga go ha he hi in ka ki la le li lo lu ma me mi mo na ne ni no "
    "o pa pe po ra re ri ro sa se si so ta te ti to u va ve vi wa za ze zo"
).split()
_TRADES: Final = "Foods Group Health Labs Logistics Media Partners Systems Trade Works".split()
_ROLES: Final = tuple(Role)


class EdgeData:
    """What there is, the same for the same numbers.

    Args:
        organizations: How many; one in 50 is deactivated, one in 50 deleted.
        memberships: How many, spread evenly.
    """

    def __init__(self, organizations: int, memberships: int) -> None:
        self.organizations = organizations
        self.memberships = memberships
        self.users = max(1, round(memberships * USERS_PER_MEMBERSHIP))
        numbers = random.Random(20)
        self.ids = [UUID(int=numbers.getrandbits(128), version=4) for _ in range(organizations)]
        self.names = [self._name(numbers, number) for number in range(organizations)]

    @staticmethod
    def _name(numbers: random.Random, number: int) -> str:
        word = "".join(numbers.choices(_SYLLABLES, k=numbers.randint(2, 4)))
        return f"{word.capitalize()} {numbers.choice(_TRADES)} {number}"

    def places_of(self, user: int) -> list[int]:
        """The organizations that a user is a direct, active member of, by number."""
        count = self.memberships // self.users + (user < self.memberships % self.users)
        return [(user + step * _STRIDE) % self.organizations for step in range(count)]

    def is_there(self, place: int) -> bool:
        """Whether an organization is neither deleted nor deactivated."""
        return place % _PARTNER_EVERY not in (33, 66, 34, 67)

    def hidden_from(self, user: int) -> UUID:
        """An organization that is there, and that a user can't see."""
        own = set(self.places_of(user))
        places = range(_NOBODYS_PLACE, self.organizations, _PARTNER_EVERY)
        return self.ids[
            next(place for n in range(len(places)) if (place := places[(user + n) % len(places)]) not in own)
        ]

    async def load(self, url: str) -> None:
        """Fill the tables of a migrated database, and let Postgres know them."""
        connection = await asyncpg.connect(url)
        await connection.copy_records_to_table("organization", records=self._organization_rows())
        await connection.copy_records_to_table("membership", records=self._membership_rows())
        await connection.copy_records_to_table("partnership", records=self.partnership_rows())
        await connection.copy_records_to_table("staff", records=[(user,) for user in STAFF])
        await connection.execute("VACUUM (ANALYZE)")
        await connection.close()

    def _organization_rows(self) -> Iterator[tuple[Any, ...]]:
        for place, (org_id, name) in enumerate(zip(self.ids, self.names, strict=True)):
            created = _BEGUN + timedelta(seconds=place * 100)
            deleted = created if place % _PARTNER_EVERY in (33, 66) else None
            deactivated = created if place % _PARTNER_EVERY in (34, 67) else None
            domain = None if place % 4 == 0 else f"{name.partition(' ')[0].lower()}{place}.com"
            key = None if deleted else name_key(name)
            yield org_id, name, key, domain, None, created, created, deactivated, deleted, 1

    def _membership_rows(self) -> Iterator[tuple[Any, ...]]:
        for user in range(self.users):
            for place in self.places_of(user):
                role = _ROLES[(user + place) % len(_ROLES)]
                yield f"user{user}", self.ids[place], role, _BEGUN + timedelta(seconds=place), True

    def partnership_rows(self) -> Iterator[tuple[Any, ...]]:
        for partner in range(0, self.organizations - _CLIENTS, _PARTNER_EVERY):
            for client in range(partner + 1, partner + 1 + _CLIENTS):
                yield self.ids[partner], self.ids[client], Role.CLOUD_REP
