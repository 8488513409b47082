"""What one user is shown: an organization, or a page of those they can see.

The statements only fetch: organizations that a user may be able to see, with the rows that say why (memberships,
partnerships, staff). What the user is in each, `domain.access.decide_access` decides, for the edge as for the worker.
"""

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import (
    Text,
    Uuid,
    and_,
    bindparam,
    exists,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import aliased
from sqlmodel import col

from org_events.reference import Role
from org_service.domain.access import Access, AccessKind, Partner, UserMembership, decide_access
from org_service.domain.organization import OrderBy, StoredOrganization, name_key
from org_service.domain.policy import READ, Policy
from org_service.store.lists import Shape, list_active, list_related
from org_service.store.prepared import Prepared
from org_service.store.sql import Rows, columns
from org_service.store.tables import MembershipRow, OrganizationRow, PartnershipRow, StaffRow

_LAST: Final = "\U0010ffff"
"""The last code point: what begins with it has nothing behind it, and begins nothing that anybody is called."""
_ROWS_PASSED: Final = 1_000
"""Rows read at a time to fill a page where a role may not read some: a user has some thousands at most."""


class Seen(NamedTuple):
    """An organization, and what the user is in it."""

    organization: StoredOrganization
    access: Access


class Entry(NamedTuple):
    """One organization of a list."""

    id: UUID
    name: str
    domain: str | None
    deactivated: bool
    access: Access
    is_default: bool
    """The user's default organization: the one they joined first. One at most, over all pages."""


class Listing(NamedTuple):
    """What to list, and in which order."""

    search: str | None
    """The beginning of a name or a domain, upper and lower case alike; None and blanks find everything."""
    access: AccessKind | None
    order_by: OrderBy
    limit: int
    after: tuple[str, UUID] | None
    """`Page.after` of the page before, in the same order."""
    readable: bool = False
    """Only what the user's role may read."""


class Page(NamedTuple):
    """A part of a list."""

    entries: list[Entry]
    after: tuple[str, UUID] | None
    """Sort key (folded name, or time as ISO 8601) and id of the last entry; None where there is no more."""


_ORGANIZATION: Final = columns(OrganizationRow, StoredOrganization._fields)
_WIDTH: Final = len(StoredOrganization._fields)
_OWN_END: Final = _WIDTH + len(UserMembership._fields)

_user_id = bindparam("user_id", type_=Text)
_org_id = bindparam("org_id", type_=Uuid)


def _find() -> Rows:
    # Every part looks for what was asked, not for what another part found: what is missing takes as much work as
    # what can't be seen.
    caller = select(exists().where(col(StaffRow.user_id) == _user_id).label("staff")).subquery("caller")
    own = aliased(MembershipRow, name="own")
    members = aliased(MembershipRow, name="members")
    partner = aliased(OrganizationRow, name="partner")
    partnership: list[Any] = [PartnershipRow.partner_org_id, col(PartnershipRow.role).label("partner_role")]
    through = (
        select(
            *partnership,
            and_(col(partner.deleted_at).is_(None), col(partner.deactivated_at).is_(None)).label("partner_active"),
            *(getattr(members, field).label(f"member_{field}") for field in UserMembership._fields),
        )
        .join(members, col(members.org_id) == col(PartnershipRow.partner_org_id))
        .join(partner, col(partner.id) == col(PartnershipRow.partner_org_id))
        .where(col(members.user_id) == _user_id, col(PartnershipRow.org_id) == _org_id)
        .subquery("through")
    )
    return (
        select(caller.c.staff, *_ORGANIZATION, *columns(own, UserMembership._fields), *through.c)
        .select_from(caller)
        .outerjoin(OrganizationRow, col(OrganizationRow.id) == _org_id)
        .outerjoin(own, and_(col(own.user_id) == _user_id, col(own.org_id) == _org_id))
        .outerjoin(through, true())
    )


_FIND: Final = Prepared(_find())


async def find(conn: AsyncConnection, user_id: str, org_id: UUID, policy: Policy) -> Seen | None:
    """Find an organization as a user sees it: one statement.

    Returns:
        None where there is none, it is deleted, or the user can't see it: after the same work, so that nobody can
        tell which by the time it took (guarantee 8).
    """
    rows = await _FIND.fetch(conn, {"user_id": user_id, "org_id": org_id})
    return _judged([row[1:] for row in rows], staff=rows[0][0], policy=policy)


async def is_hidden(conn: AsyncConnection, user_id: str, org_id: UUID | None, policy: Policy) -> bool:
    """Whether a user has to do with an organization, and their role is denied to read it; one statement at most."""
    if org_id is None or not policy.hides:
        return False
    seen = await find(conn, user_id, org_id, policy)
    return seen is not None and READ in seen.access.denied_actions


def _judged(rows: Sequence[Sequence[Any]], *, staff: bool, policy: Policy) -> Seen | None:
    """What a user is in one organization.

    Args:
        rows: The organization, the user's own membership, a partnership with the user's membership in the partner: a
            row for each partnership, for staff without. What is missing is None, as outer joins leave it.
        staff: Whether the user is staff.
        policy: What each role is denied.
    """
    first = rows[0]
    memberships: dict[UUID, UserMembership] = {}
    partnerships: list[Partner] = []
    if first[_WIDTH] is not None:
        memberships[first[_WIDTH]] = _membership(first[_WIDTH:_OWN_END])
    if len(first) > _OWN_END:
        for row in rows:
            if row[_OWN_END] is not None:
                partner_id, role, active, *member = row[_OWN_END:]
                partnerships.append(Partner(partner_id, Role(role), active))
                memberships[partner_id] = _membership(member)
    organization = StoredOrganization._make(first[:_WIDTH])
    access = decide_access(organization, memberships=memberships, partnerships=partnerships, staff=staff, policy=policy)
    # Of one that does not exist everything is None, also when it was deleted: that alone would let it pass.
    return None if access is None or first[0] is None else Seen(organization, access)


def _membership(row: Sequence[Any]) -> UserMembership:
    org_id, role, joined_at, active = row
    return UserMembership(org_id, Role(role), joined_at, active)


async def list_for(conn: AsyncConnection, user_id: str, listing: Listing, policy: Policy) -> Page:
    """List the organizations that a user can see: one statement, two for staff.

    Those that a role may not read are passed over if `readable` is asked for, and more statements fill the page.

    Ordinary users see, deactivated or not, what they are direct members of and the clients of their active partners;
    staff every active organization, and deactivated ones that they are direct members of.

    Args:
        conn: In AUTOCOMMIT.
        user_id: Whose list.
        listing: Which part of it; `search` may be any text.
        policy: What each role is denied.

    Raises:
        ValueError: `listing.after` doesn't belong to this order. Nothing was read.
    """
    search = _folded(listing.search)
    if not is_storable(search) or _LAST in search:
        return Page([], None)
    shape = Shape(bool(search), listing.access, listing.order_by, listing.after is not None)
    fixed = {"user_id": user_id} | _range(search)
    hidden = READ if listing.readable else None
    seen: list[Seen] = []
    rows_max, after = listing.limit + 1, listing.after
    while True:
        shape = shape._replace(following=after is not None)
        parameters = fixed | {"rows_max": rows_max} | _after(shape, after)
        rows = await list_related(shape).fetch(conn, parameters)
        staff, default_id = rows[0][:2]
        rows = [row[2:] for row in rows if row[2] is not None]
        if staff and hidden in policy.denied[Role.ADMIN]:
            return Page([], None)
        if staff and listing.access in (None, AccessKind.STAFF):
            rows = await list_active(shape).fetch(conn, parameters)
        same_ids = [list(same) for _, same in groupby(rows, key=itemgetter(0))]
        judged = [_judged(same, staff=staff, policy=policy) for same in same_ids]
        seen += [each for each in judged if each is not None and hidden not in each.access.denied_actions]
        if len(seen) > listing.limit or len(same_ids) < rows_max:
            break
        last_read = StoredOrganization._make(same_ids[-1][0][:_WIDTH])
        rows_max, after = _ROWS_PASSED, (_key_of(shape, last_read), last_read.id)
    entries = [_entry(each, default_id) for each in seen[: listing.limit]]
    last = seen[listing.limit - 1].organization if len(seen) > listing.limit else None
    return Page(entries, None if last is None else (_key_of(shape, last), last.id))


def _entry(seen: Seen, default_id: UUID | None) -> Entry:
    organization, access = seen
    deactivated = organization.deactivated_at is not None
    is_default = organization.id == default_id
    return Entry(organization.id, organization.name, organization.domain, deactivated, access, is_default)


def _key_of(shape: Shape, last: StoredOrganization) -> str:
    return (last.name_key or "") if shape.by_name else last.created_at.isoformat()


def _after(shape: Shape, after: tuple[str, UUID] | None) -> dict[str, Any]:
    if after is None:
        return {}
    key, org_id = after
    if shape.by_name:
        if not is_storable(key):
            raise ValueError("not a folded name")
        return {"after_name_key": key}
    moment = datetime.fromisoformat(key)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return {"after_created_at": moment, "after_id": org_id}


def _folded(search: str | None) -> str:
    """As names are folded; domains are lower-case ASCII, which is its own fold."""
    return name_key(unicodedata.normalize("NFKC", search or "").strip())


def is_storable(value: str) -> bool:
    """Whether Postgres takes the text."""
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)


def _range(search: str) -> dict[str, str]:
    """Where the texts are that begin like this, in code points: from it up to the next that is as long."""
    if not search:
        return {}
    following = ord(search[-1]) + 1
    return {"search_from": search, "search_to": search[:-1] + chr(0xE000 if following == 0xD800 else following)}
