"""What the reference data say of the users and organizations of a batch: who belongs where, who serves whom.

Three statements for any number of pairs, read in the transaction that decides; nothing is locked, because reference
data come from elsewhere and are true as of some moment anyhow.
"""

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ARRAY, FromClause, Select, Text, Uuid, bindparam, exists, func, select, union
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col

from org_events.reference import Role
from org_service.domain.access import NO_RELATIONS, Partner, Relations, UserMembership
from org_service.store.sql import columns, unnest
from org_service.store.tables import MembershipRow, OrganizationRow, PartnershipRow, StaffRow

_ids = bindparam("ids", type_=ARRAY(Uuid))
_asked = unnest({"user_id": Text, "org_id": Uuid}, prefix="asked_")
_memberships: list[Any] = [MembershipRow.user_id, *columns(MembershipRow, UserMembership._fields)]
_user_and_partner: list[Any] = [_asked.c.user_id, col(PartnershipRow.partner_org_id).label("org_id")]
# DISTINCT keeps the planner from joining all memberships of a user to each pair first: of somebody who has thousands,
# a batch would make millions of rows, and end at its time limit however often it is tried.
_of_partners = (
    select(*_user_and_partner)
    .join_from(_asked, PartnershipRow, col(PartnershipRow.org_id) == _asked.c.org_id)
    .distinct()
    .subquery("of_partners")
)


def _memberships_in(pairs: FromClause) -> Select[*tuple[Any, ...]]:
    return select(*_memberships).join(
        pairs, (col(MembershipRow.user_id) == pairs.c.user_id) & (col(MembershipRow.org_id) == pairs.c.org_id)
    )


_FIND_MEMBERSHIPS: Final = union(_memberships_in(_asked), _memberships_in(_of_partners))
_alive = col(OrganizationRow.deleted_at).is_(None)
_partners: list[Any] = [
    PartnershipRow.org_id,
    PartnershipRow.partner_org_id,
    PartnershipRow.role,
    (col(OrganizationRow.id).is_not(None) & _alive & col(OrganizationRow.deactivated_at).is_(None)).label(
        "partner_active"
    ),
]
_FIND_PARTNERS: Final = (
    select(*_partners)
    .outerjoin(OrganizationRow, col(OrganizationRow.id) == col(PartnershipRow.partner_org_id))
    .where(col(PartnershipRow.org_id) == func.any(_ids))
)
_FIND_STAFF: Final = select(col(StaffRow.user_id)).where(
    col(StaffRow.user_id) == func.any(bindparam("users", type_=ARRAY(Text)))
)
_IS_STAFF: Final = select(exists().where(col(StaffRow.user_id) == bindparam("user_id", type_=Text)))
_FIND_CLIENTS: Final = (
    select(
        col(PartnershipRow.partner_org_id),
        col(PartnershipRow.org_id),
        (col(OrganizationRow.id).is_not(None) & _alive).label("alive"),
    )
    .outerjoin(OrganizationRow, col(OrganizationRow.id) == col(PartnershipRow.org_id))
    .where(col(PartnershipRow.partner_org_id) == func.any(_ids))
)


async def find_relations(conn: AsyncConnection, pairs: Collection[tuple[str, UUID]]) -> Relations:
    """What the reference data say of users and organizations, as `access.decide_access` wants to know it.

    Args:
        pairs: A user and an organization each; no other pair can be asked about.
    """
    if not pairs:
        return NO_RELATIONS
    users, orgs = [user for user, _ in pairs], [org_id for _, org_id in pairs]
    staff = await conn.scalars(_FIND_STAFF, {"users": list(set(users))})
    memberships: dict[str, dict[UUID, UserMembership]] = {}
    for row in await conn.execute(_FIND_MEMBERSHIPS, {"asked_user_id": users, "asked_org_id": orgs}):
        membership = UserMembership(row.org_id, Role(row.role), row.joined_at, row.active)
        memberships.setdefault(row.user_id, {})[row.org_id] = membership
    partnerships: dict[UUID, list[Partner]] = {}
    for row in await conn.execute(_FIND_PARTNERS, {"ids": list(set(orgs))}):
        partnership = Partner(row.partner_org_id, Role(row.role), row.partner_active)
        partnerships.setdefault(row.org_id, []).append(partnership)
    return Relations(frozenset(staff), memberships, partnerships)


async def is_staff(conn: AsyncConnection, user_id: str) -> bool:
    """Whether a user works for whoever runs the platform."""
    return bool(await conn.scalar(_IS_STAFF, {"user_id": user_id}))


async def find_clients(conn: AsyncConnection, ids: Collection[UUID]) -> dict[UUID, list[tuple[UUID, bool]]]:
    """Which organizations these serve as partners, and whether each is there and not deleted."""
    clients: dict[UUID, list[tuple[UUID, bool]]] = {}
    if ids:
        for partner_org_id, org_id, alive in await conn.execute(_FIND_CLIENTS, {"ids": list(ids)}):
            clients.setdefault(partner_org_id, []).append((org_id, alive))
    return clients
