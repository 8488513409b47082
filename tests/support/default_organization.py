"""Which organization a list calls the default: the rule in Python, for the oracle of what the statements say."""

from collections.abc import Iterable
from uuid import UUID

from org_service.domain.access import UserMembership


def default_organization(memberships: Iterable[UserMembership]) -> UUID | None:
    """The earliest-joined active direct membership; of several at one moment the smallest id, so there is just one.

    Args:
        memberships: Of one user, in organizations that are there.
    """
    active = [membership for membership in memberships if membership.active]
    return min(active, key=lambda m: (m.joined_at, m.org_id.int)).org_id if active else None
