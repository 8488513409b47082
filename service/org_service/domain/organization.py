"""An organization inside the service, and its JSON outside."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import datetime
from itertools import compress
from operator import ne
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID

import orjson

from org_events.organization import IGNORABLE

_UTC_Z: Final = orjson.OPT_UTC_Z
_IGNORABLE: Final = re.compile(f"[{IGNORABLE}]")

OrderBy = Literal["name", "-name", "created_at", "-created_at"]
"""Of a list; a minus is descending. Names are ordered as they are folded, by code point."""


class StoredOrganization(NamedTuple):
    """One row of the table `organization`, in column order. A tuple: made a thousand times a batch."""

    id: UUID
    name: str
    name_key: str | None
    """The folded name that must be unique; None once deleted, so that the name is free."""
    domain: str | None
    primary_address: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    deactivated_at: datetime | None
    deleted_at: datetime | None
    version: int

    @property
    def erased(self) -> bool:
        """Whether nothing of it is left but its id, its version and its times: it was deleted, and stays it."""
        return not self.name


COMPARED_FIELDS: Final = ("name", "domain", "primary_address", "deactivated")
"""The fields an event's `changed` may name, in this order."""


def choose_moment(organization: StoredOrganization | None, now: datetime) -> datetime:
    """When something about an organization is recorded: now, but never before its last change, which a worker whose
    clock is ahead may have made.
    """
    return now if organization is None or organization.updated_at <= now else organization.updated_at


def name_key(name: str) -> str:
    """The form of a normalized name that must be unique: case-folded, without what is shown as nothing, and composed.

    Never empty for a name that has anything to see.
    """
    folded = name.casefold()
    if folded.isascii():
        return folded
    return unicodedata.normalize("NFKC", _IGNORABLE.sub("", folded)).strip()


def to_published(organization: StoredOrganization) -> dict[str, Any]:
    """The organization as everybody outside sees it (`org_events.Organization`); times as they are."""
    return {
        "id": str(organization.id),  # the driver's own UUID class is unknown to orjson
        "name": organization.name,
        "domain": organization.domain,
        "created_at": organization.created_at,
        "updated_at": organization.updated_at,
        "primary_address": organization.primary_address,
        "deactivated": organization.deactivated_at is not None,
        "deactivated_at": organization.deactivated_at,
        "version": organization.version,
    }


def from_published(published: Mapping[str, Any]) -> StoredOrganization:
    """The row of an organization that is there, from what `to_published` made of it, read from JSON."""
    name, deactivated_at = published["name"], published["deactivated_at"]
    return StoredOrganization(
        UUID(published["id"]),
        name,
        name_key(name),
        published["domain"],
        published["primary_address"],
        datetime.fromisoformat(published["created_at"]),
        datetime.fromisoformat(published["updated_at"]),
        None if deactivated_at is None else datetime.fromisoformat(deactivated_at),
        None,
        published["version"],
    )


def as_deleted(organization: StoredOrganization, version: int, moment: datetime) -> StoredOrganization:
    """The row that a deletion leaves of an organization: its name is free."""
    return organization._replace(name_key=None, deleted_at=moment, updated_at=moment, version=version)


def without_content(org_id: UUID, version: int, moment: datetime) -> StoredOrganization:
    """A deleted organization of which no more is known, or may be: its id stays taken, its versions go on."""
    return StoredOrganization(org_id, "", None, None, None, moment, moment, None, moment, version)


def to_json(organization: StoredOrganization) -> str:
    """The organization as in `orgs.state`, events and results."""
    return orjson.dumps(to_published(organization), option=_UTC_Z).decode()


_NOBODY: Final = (None, None, None, False)


def find_changed_fields(before: StoredOrganization | None, after: StoredOrganization | None) -> tuple[str, ...]:
    """Those of `COMPARED_FIELDS` that differ; a missing organization counts as all null and not deactivated."""
    return tuple(compress(COMPARED_FIELDS, map(ne, _compared(before), _compared(after))))


def _compared(organization: StoredOrganization | None) -> tuple[str | None, str | None, dict[str, Any] | None, bool]:
    if organization is None or organization.deleted_at is not None:
        return _NOBODY
    _, name, _, domain, primary_address, _, _, deactivated_at, _, _ = organization
    return name, domain, primary_address, deactivated_at is not None
