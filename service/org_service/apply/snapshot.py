"""What a batch is decided on, read in one transaction (READ COMMITTED): lock first, look second (decision 0003).

A worker that lost its partitions in a rebalance may still be writing a batch that its successor has read again: the
successor waits at the locks, and its next statement sees the first one's journal. What has no row to lock yet is
checked after the last look (`is_torn`), and by the unique indexes.
"""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from org_events.commands import CreateOrganization
from org_service import probes
from org_service.domain.organization import StoredOrganization
from org_service.domain.requests import Rejected, Request
from org_service.domain.snapshot import (
    Snapshot,
    find_asked_pairs,
    find_deleted,
    find_restored,
    find_wanted_names,
    is_torn,
)
from org_service.errors import RefoldError
from org_service.probes import probe
from org_service.store import organizations, outcomes, parked, relations
from org_service.store.database import DatabaseConnection


async def read_snapshot(
    conn: DatabaseConnection, requests: Sequence[Request], queued_max: int, more_org_ids: Collection[UUID] = ()
) -> Snapshot:
    """Lock the organizations of a batch and read what its commands are decided on; the locks last until the commit.

    Args:
        conn: In the transaction that decides.
        requests: Of the batch.
        queued_max: How far the parked commands of one organization are counted.
        more_org_ids: To be locked as well.

    Raises:
        RefoldError: Another transaction got between the statements; roll back, and read again.
    """
    org_ids = {each.org_id for each in requests if each.org_id is not None and not isinstance(each.command, Rejected)}
    org_ids.update(more_org_ids)
    command_ids = [each.command_id for each in requests]
    names = await organizations.find_names(conn, find_restored(requests))
    wanted = find_wanted_names(requests, names)

    locked = await organizations.lock(conn, org_ids, wanted)
    if probes.listeners:
        await probe("apply.after_lock")
    # Second, and in a statement of its own, which sees what was committed before it began (guarantee 1). Whoever held
    # these locks has committed by now, so this one sees what they journaled. Asked before the locks it would find
    # nothing, wait for them, decide the same commands again, and fail at the unique command id: at every rebalance.
    journaled = await outcomes.find_journaled(conn, command_ids)
    held, waiting = await parked.find(conn, org_ids, command_ids, queued_max)
    await _see_queues_stand(conn, requests, locked, held)
    holders = await organizations.find_holders(conn, wanted)
    access = await relations.find_relations(conn, find_asked_pairs(requests))
    clients = await relations.find_clients(conn, find_deleted(requests))

    snapshot = Snapshot(locked, journaled, held, waiting, holders, access, clients)
    if is_torn(snapshot, org_ids, names):
        raise RefoldError("another transaction committed between the statements of the snapshot")
    return snapshot


async def _see_queues_stand(
    conn: DatabaseConnection,
    requests: Sequence[Request],
    locked: Mapping[UUID, StoredOrganization],
    held: Mapping[UUID, int],
) -> None:
    """See that no release got in between, where an organization has no row that both would lock.

    Its create is parked, and may be released at any moment. Where it was when we looked, the first command of the queue
    is locked: a release waits then until ours is behind it. Where it was not, the organization may have been made after
    the locks: a command that isn't a create would be told that there is none.

    Raises:
        RefoldError: One did.
    """
    waiting = held.keys() - locked.keys()
    if waiting and await parked.lock_heads(conn, waiting) != waiting:
        raise RefoldError("the queue of an organization was released in between")
    first: dict[UUID, Request] = {}
    for request in requests:
        if request.org_id is not None and request.org_id not in locked and not isinstance(request.command, Rejected):
            first.setdefault(request.org_id, request)
    missing = [org_id for org_id, each in first.items() if not isinstance(each.command, CreateOrganization)]
    if missing and await organizations.lock(conn, missing, ()):
        raise RefoldError("an organization was made in between")
