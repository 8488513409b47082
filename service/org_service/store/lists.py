"""The statements behind lists of organizations; `directory` runs them.

Pages follow the last entry of the page before (keyset), so a deep page costs what the first one costs. Ordinary users
get theirs from their memberships and the clients of their partners, sorted; what that costs grows with them. Staff
see a million organizations, so for them an index is read in the order asked for. A search among these would want two
orders at once, by text and by page, and which of them is cheap can't be told beforehand: names and domains go
together, so the planner's guess of how many entries to pass until one matches is off by any factor. So some thousands
are read in page order; if they don't fill the page, few enough match that all of these can be fetched and sorted.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    DateTime,
    FromClause,
    Integer,
    Text,
    Uuid,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
    union,
    union_all,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.selectable import LateralFromClause
from sqlmodel import col

from org_service.domain.access import AccessKind, UserMembership
from org_service.domain.organization import OrderBy, StoredOrganization
from org_service.store.prepared import Prepared
from org_service.store.sql import Rows, columns
from org_service.store.tables import MembershipRow, OrganizationRow, PartnershipRow, StaffRow

NAMES_WALKED_MAX: Final = 1_000
TIMES_WALKED_MAX: Final = 5_000
"""Organizations a search reads in page order before it gives up: one or two milliseconds. It fills a page of 50
where one in 20, or in 100, matches. Rows in order of name are looked up one by one, in order of time the index holds
all there is to see."""

_user_id = bindparam("user_id", type_=Text)
_rows_max = bindparam("rows_max", type_=Integer)

_LISTED: Final[list[Any]] = [
    null().label(field) if field == "primary_address" else getattr(OrganizationRow, field)
    for field in StoredOrganization._fields
]
"""A list shows no address, so none is read."""
_KEYS: Final[list[Any]] = [OrganizationRow.id, OrganizationRow.name_key, OrganizationRow.created_at]

_IS_STAFF: Final = exists().where(col(StaffRow.user_id) == _user_id)
_there = col(OrganizationRow.deleted_at).is_(None)
_active = and_(_there, col(OrganizationRow.deactivated_at).is_(None))


class Shape(NamedTuple):
    """What tells one statement of lists from another; everything else is a parameter."""

    searching: bool
    access: AccessKind | None
    order_by: OrderBy
    following: bool
    """Whether it is a page after another."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns of the order. Folded names are unique among those that aren't deleted."""
        return ("name_key",) if self.by_name else ("created_at", "id")

    @property
    def by_name(self) -> bool:
        """Whether names make the order."""
        return self.order_by.endswith("name")

    def make_order(self, source: Any) -> list[ColumnElement[Any]]:
        """The order, for ORDER BY."""
        columns: list[ColumnElement[Any]] = [getattr(source, key) for key in self.keys]
        return [column.desc() for column in columns] if self.order_by.startswith("-") else columns

    def make_following(self) -> ColumnElement[bool]:
        """What comes after the page before."""
        # Names of deleted organizations are null and stand at one end of the index: not to be passed one by one.
        there = col(OrganizationRow.name_key).is_not(None) if self.by_name else true()
        if not self.following:
            return there
        types: dict[str, Any] = {"name_key": Text, "created_at": DateTime(timezone=True), "id": Uuid}
        key = tuple_(*(getattr(OrganizationRow, key) for key in self.keys))
        last = tuple_(*(bindparam(f"after_{key}", type_=types[key]) for key in self.keys))
        return and_(there, key < last if self.order_by.startswith("-") else key > last)


def _begins(column: Any) -> ColumnElement[bool]:
    """In a range rather than LIKE: no wildcards to escape, and an index serves it whatever the plan."""
    first, end = bindparam("search_from", type_=Text), bindparam("search_to", type_=Text)
    return and_(column >= first, column < end)


_name_begins = _begins(col(OrganizationRow.name_key))
_domain_begins = _begins(col(OrganizationRow.domain))
_found = or_(_name_begins, _domain_begins)


def _organizations_of(ids: FromClause, *conditions: ColumnElement[bool]) -> LateralFromClause:
    """The organizations of some ids, to be joined with these.

    Each is looked up (the OFFSET is a fence that keeps the planner from joining otherwise): it can't know how many a
    user has, and reads a million organizations from end to end, or an index of them, where it expects many.
    """
    return select(*_LISTED).where(col(OrganizationRow.id) == ids.c.org_id, *conditions).offset(0).lateral()


def _default(mine: FromClause) -> ColumnElement[Any]:
    """The earliest joined of the active memberships, of several at one moment the one with the smallest id."""
    joined = select(mine).order_by(mine.c.joined_at, mine.c.org_id).offset(0).subquery("joined")
    return (
        select(joined.c.org_id)
        .join(_organizations_of(joined, _there), true())
        .order_by(joined.c.joined_at, joined.c.org_id)
        .limit(1)
        .scalar_subquery()
    )


def _reached(mine: FromClause) -> FromClause:
    """Partnerships through which the user comes to clients."""
    serves = exists().where(col(PartnershipRow.partner_org_id) == mine.c.org_id)
    partner = select(mine).where(serves).offset(0).subquery("partner")
    partnership: list[Any] = [PartnershipRow.org_id, PartnershipRow.partner_org_id]
    partnership += [col(PartnershipRow.role).label("partner_role"), true().label("partner_active")]
    return (
        select(*partnership, *(partner.c[field].label(f"member_{field}") for field in UserMembership._fields))
        .select_from(partner)
        .join(_organizations_of(partner, _active), true())
        .join(PartnershipRow, col(PartnershipRow.partner_org_id) == partner.c.org_id)
        .cte("reached")
    )


@cache
def list_related(shape: Shape) -> Prepared:
    """What a user has by membership and partnership: whether they are staff, the default, and the page's rows.

    Staff get no rows here, but for what they are direct members of if just that is asked for.
    """
    mine = (
        select(*columns(MembershipRow, UserMembership._fields))
        .where(col(MembershipRow.user_id) == _user_id, col(MembershipRow.active))
        .cte("mine")
    )
    reached = _reached(mine)
    staff = select(_IS_STAFF).scalar_subquery()
    direct, clients = select(mine.c.org_id), select(reached.c.org_id)
    match shape.access:
        case None:
            candidates = union(direct.where(~staff), clients.where(~staff))
        case AccessKind.DIRECT:
            candidates = direct
        case AccessKind.PARTNERSHIP:
            candidates = clients.where(~staff).except_(direct)
        case AccessKind.STAFF:
            candidates = direct.where(~true())
    candidate = candidates.subquery("candidate")
    found = _organizations_of(candidate, _there, shape.make_following(), _found if shape.searching else true())
    fetched = select(found).select_from(candidate).join(found, true()).subquery("fetched")
    page = select(fetched).order_by(*shape.make_order(fetched.c)).limit(_rows_max).subquery("page")
    caller = select(_IS_STAFF.label("staff"), _default(mine).label("default_id")).subquery("caller")
    return Prepared(
        select(caller, page, *(mine.c[field] for field in UserMembership._fields), *reached.c[1:])
        .select_from(caller)
        .outerjoin(page, true())
        .outerjoin(mine, mine.c.org_id == page.c.id)
        .outerjoin(reached, reached.c.org_id == page.c.id)
        .order_by(*shape.make_order(page.c))
    )


@cache
def list_active(shape: Shape) -> Prepared:
    """The page's rows of staff: every active organization, and deactivated ones that they are direct members of."""
    direct = exists().where(
        col(MembershipRow.user_id) == _user_id,
        col(MembershipRow.org_id) == col(OrganizationRow.id),
        col(MembershipRow.active),
    )
    wanted = and_(_active, shape.make_following(), true() if shape.access is None else ~direct)
    parts = _searched(shape, wanted) if shape.searching else [_in_order(shape, wanted)]
    if shape.access is None:
        mine = (
            select(col(MembershipRow.org_id))
            .where(col(MembershipRow.user_id) == _user_id, col(MembershipRow.active))
            .subquery("mine")
        )
        conditions = (_there, ~_active, shape.make_following(), _found if shape.searching else true())
        deactivated = _organizations_of(mine, *conditions)
        parts.append(_first(shape, select(deactivated).select_from(mine).join(deactivated, true()).subquery()))
    chosen = union_all(*parts).subquery("chosen")
    page = _first(shape, chosen).subquery("page")
    own = aliased(MembershipRow, name="own")
    return Prepared(
        select(*_LISTED, *columns(own, UserMembership._fields))
        .join(page, page.c.id == col(OrganizationRow.id))
        .outerjoin(own, and_(col(own.user_id) == _user_id, col(own.org_id) == page.c.id))
        .order_by(*shape.make_order(OrganizationRow))
    )


def _first(shape: Shape, source: FromClause) -> Rows:
    """The first rows of a source in the order of the list."""
    return (
        select(source.c.id, source.c.name_key, source.c.created_at)
        .order_by(*shape.make_order(source.c))
        .limit(_rows_max)
    )


def _in_order(shape: Shape, wanted: ColumnElement[bool]) -> Rows:
    return select(*_KEYS).where(wanted).order_by(*shape.make_order(OrganizationRow)).limit(_rows_max)


def _searched(shape: Shape, wanted: ColumnElement[bool]) -> list[Rows]:
    """What a search finds among a bounded number in page order; where that is too little, also everything it finds."""
    walked = (
        select(*_KEYS, col(OrganizationRow.domain))
        .where(wanted)
        .order_by(*shape.make_order(OrganizationRow))
        .limit(literal_column(str(NAMES_WALKED_MAX if shape.by_name else TIMES_WALKED_MAX)))
        .subquery("walked")
    )
    passed = or_(_begins(walked.c.name_key), _begins(walked.c.domain))
    met = _first(shape, select(walked).where(passed).subquery()).cte("met")
    too_few = select(func.count()).select_from(met).scalar_subquery() < _rows_max
    by_name = and_(wanted, too_few, _name_begins)
    by_domain = and_(wanted, too_few, _domain_begins, ~_name_begins)
    named = _in_order(shape, by_name) if shape.by_name else _sorted(shape, by_name)
    return [select(met).where(~too_few), named, _sorted(shape, by_domain)]


def _sorted(shape: Shape, wanted: ColumnElement[bool]) -> Rows:
    """As `_in_order`, but all are fetched and sorted: never by walking through others in page order."""
    return _first(shape, select(*_KEYS).where(wanted).offset(0).subquery())


def examples() -> Iterator[tuple[str, Prepared]]:
    """A statement for each thing that tells one shape from another, each changed alone; for `docs/sql`."""
    plain = Shape(searching=False, access=None, order_by="name", following=False)
    changed: dict[str, Shape] = {
        "": plain,
        "_searched": plain._replace(searching=True),
        "_following": plain._replace(following=True),
        "_descending": plain._replace(order_by="-name"),
        "_by_time": plain._replace(order_by="created_at"),
        "_by_time_searched": plain._replace(order_by="created_at", searching=True),
    }
    for kind in (AccessKind.DIRECT, AccessKind.PARTNERSHIP, AccessKind.STAFF):
        changed[f"_{kind}"] = plain._replace(access=kind)
    for name, shape in changed.items():
        yield f"list_related{name}", list_related(shape)
        if shape.access in (None, AccessKind.STAFF):
            yield f"list_active{name}", list_active(shape)
