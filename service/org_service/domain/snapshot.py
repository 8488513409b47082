"""What must be read of the database before a batch can be folded, and whether what was read fits together. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from org_events.commands import CreateOrganization, DeleteOrganization, RestoreOrganization, UpdateOrganization
from org_events.results import Outcome
from org_service.domain.access import NO_RELATIONS, Relations
from org_service.domain.organization import StoredOrganization, name_key
from org_service.domain.outcomes import KnownOutcome
from org_service.domain.requests import Request


class Snapshot(NamedTuple):
    """What the database knows of a batch, read under the locks. Nothing changes it: the fold works on copies."""

    organizations: Mapping[UUID, StoredOrganization]
    journaled: Mapping[UUID, KnownOutcome]
    held: Mapping[UUID, int]
    """Organizations with open parked commands, and how many they have (counted up to the bound of a queue)."""
    parked: Mapping[UUID, bytes]
    """The open parked commands among those of the batch: their ids and digests."""
    holders: Mapping[str, UUID]
    """Who holds the names that the batch may claim, by `name_key`."""
    relations: Relations = NO_RELATIONS
    clients: Mapping[UUID, Sequence[tuple[UUID, bool]]] = MappingProxyType({})
    """Of organizations that may be deleted: whom they serve as partners, and whether that one is alive."""


def find_restored(requests: Iterable[Request]) -> list[UUID]:
    """The organizations that a command of the batch would restore: they claim the names they had."""
    return [request.command.org_id for request in requests if isinstance(request.command, RestoreOrganization)]


def find_wanted_names(requests: Iterable[Request], names: Mapping[UUID, str]) -> set[str]:
    """Every `name_key` that a command of the batch may claim; `names` are those of restored organizations."""
    keys = {name_key(name) for name in names.values()}
    for request in requests:
        command = request.command
        if isinstance(command, CreateOrganization) or (
            isinstance(command, UpdateOrganization) and "name" in command.model_fields_set
        ):
            keys.add(name_key(command.name))
    return keys


def find_asked_pairs(requests: Iterable[Request]) -> set[tuple[str, UUID]]:
    """Which users act on which organizations; trusted publishers aren't asked about."""
    return {
        (request.user_id, request.org_id)
        for request in requests
        if request.user_id is not None and request.org_id is not None
    }


def find_deleted(requests: Iterable[Request]) -> list[UUID]:
    """The organizations that a command of the batch would delete."""
    return [request.command.org_id for request in requests if isinstance(request.command, DeleteOrganization)]


def is_torn(snapshot: Snapshot, org_ids: Collection[UUID], names: Mapping[UUID, str]) -> bool:
    """Whether another transaction got between the statements of a snapshot, where no row was there to lock.

    Each statement sees what was committed before it began, so what the later ones see may not fit to what was locked:
    a name is held by an organization that is not locked, and may be free again before this batch is journaled; an
    organization was made by a command that is journaled now, and would seem to be missing; a restored one has another
    name by now.

    Args:
        snapshot: As read.
        org_ids: The organizations of the batch, which were to be locked. (A command id may be journaled for another.)
        names: Of the restored ones, as they were read before the locks.
    """
    organizations = snapshot.organizations
    return (
        any(holder not in organizations for holder in snapshot.holders.values())
        or any(
            known.outcome != Outcome.REJECTED and known.org_id in org_ids and known.org_id not in organizations
            for known in snapshot.journaled.values()
        )
        or any(organizations[org_id].name != name for org_id, name in names.items())
    )
