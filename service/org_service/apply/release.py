"""Parked records are decided, or discarded, as an operator wants it: by the code and under the locks of a worker.

Of an organization's queue the first commands are decided in order, as if they had just come; the rows say so in the
transaction that journals the outcomes, and the relay publishes these. A command that fails again stays where it is,
with the new reason, and those behind it wait on. While any is open, a worker queues new commands behind it.

No breaker: nothing is parked here that was not parked before, and what is released is what had failed, so the share of
failures says nothing. Whether our code works at all is asked once, before (`see_sound`).

Refused: sending the records to `orgs.commands` again. They would come behind what was sent since, other commands would
be decided before them, and their tokens are gone.
"""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

from org_events.results import ProblemType
from org_service import probes
from org_service.apply.canary import Reader, decides_nothing
from org_service.apply.reading import read_each
from org_service.apply.settle import Settling
from org_service.apply.snapshot import read_snapshot
from org_service.apply.writing import write_decided
from org_service.domain import details
from org_service.domain.fold import Decider, Fold, Plan, describe_place
from org_service.domain.outcomes import StoredRecord
from org_service.domain.policy import Policy
from org_service.domain.reasons import AuthenticatedBy, ParkedState, ParkReason
from org_service.domain.requests import Rejected, Request, SetAside, Unreadable
from org_service.errors import PreconditionError
from org_service.probes import probe
from org_service.settings import WorkerSettings
from org_service.store import parked_queues
from org_service.store.database import Database, DatabaseConnection
from org_service.store.failures import classify
from org_service.store.parked_queues import QueueEnds, ReadAgain
from org_service.telemetry.logs import get_logger, log_defect
from org_service.telemetry.metrics import COMMANDS
from org_service.waiting import Heartbeat
from org_service.wire.commands import read
from org_service.wire.parked import RecordAgain, keep_record, lacks_token, read_type, record_again

log = get_logger(__name__)

DISCARDED: Final = "discarded"
FAILED: Final = "failed again"
WAITING: Final = "waiting behind a failed one"
KNOWN: Final = "decided before"
"""What became of a record, beside the outcomes of commands."""


class Settled(NamedTuple):
    """What became of some records, in one transaction."""

    counts: Mapping[str, int]
    going_on: Collection[UUID]
    """Organizations whose first command is none of these any more, and which have more that wait."""
    ended: Collection[UUID]
    """Those of which nothing can be done now: their queue is empty, or its first command failed."""


Note = Callable[[DatabaseConnection, Settled], Awaitable[None]]
"""Notes it in the same transaction."""
Done = Callable[[int], Awaitable[None]]
"""Told of each commit, what was noted last: how many records it settled; 0 where its answer had been lost."""


class Releaser:
    """Releases and discards parked records for one run."""

    def __init__(
        self,
        database: Database,
        policy: Policy,
        settings: WorkerSettings,
        run_id: UUID,
        *,
        trusts: bool,
        note: Note,
        done: Done,
        reader: Reader | None = None,
        decider: Decider | None = None,
    ) -> None:
        """Make one.

        Args:
            database: With the rights of an operator.
            policy: What each role is denied, now.
            settings: How long outages are waited out.
            run_id: Kept in the rows.
            trusts: Whether a command without a token is its publisher's word.
            note: Notes each step in its transaction.
            done: Told of each step after it.
            reader: Reads each record, in place of `wire.commands`.
            decider: Decides each command, in place of `domain.decide`.
        """
        self._database = database
        self._policy = policy
        self._run_id = run_id
        self._trusts = trusts
        self._note = note
        self._done = done
        self._reader = reader or read
        self._decider = decider
        self._settling = Settling(
            "the release", classify=classify, waits_s=settings.retry_waits_s, heartbeat=Heartbeat(), log=log
        )

    def see_sound(self) -> None:
        """See that our code decides what is known to be good.

        Raises:
            PreconditionError: It raises on all of it: a release would only use up the tries of what is parked.
        """
        if decides_nothing(self._reader, self._decider, None if self._trusts else self._policy):
            raise PreconditionError(
                "the code of this release fails even on commands that are known to be good, so nothing was released: "
                "run this with a good release (docs/operating.md, a bad release went out)."
            )

    async def release(self, records: Sequence[StoredRecord]) -> None:
        """Decide records: commands of one organization in order, none without those before it.

        Outages are waited out. Safe to repeat with the same records.

        Raises:
            ServiceError: What `note` or `done` raises. What was told to `done` is committed.
        """
        await self._settling.settle(records, partial(self._transact, None), self._finish)

    async def discard(self, records: Sequence[StoredRecord], detail: str) -> None:
        """Reject commands for good, each with `detail`; what is no command is done with. As `release`."""
        await self._settling.settle(records, partial(self._transact, detail), self._finish)

    async def _transact(
        self, discarding: str | None, records: Sequence[StoredRecord], refused: str | None
    ) -> tuple[Plan, Settled] | None:
        requests = self._requests(records) if discarding is None else _discards(records, discarding)
        readable = [each for each in requests.values() if isinstance(each, Request)]
        org_ids = {each.org_id for each in (*records, *readable) if each.org_id is not None}
        async with self._database.begin() as conn:
            snapshot = await read_snapshot(conn, readable, 1, org_ids)
            as_read = {each.id: each.attempts for each in records}
            if await parked_queues.lock(conn, as_read.keys()) != as_read:
                return None  # a step is one transaction: where something of it is settled, all of it is
            ends = await parked_queues.read_ends(conn, org_ids)  # nobody adds to them: see read_snapshot
            now = datetime.now(UTC)
            held = _held_by_earlier(records, requests, ends)
            ours = {each.command_id for each in records}
            snapshot = snapshot._replace(
                held=held, parked={id_: digest for id_, digest in snapshot.parked.items() if id_ not in ours}
            )
            fold = Fold(snapshot, now, self._policy, refused=refused, queued_max=sys.maxsize, decider=self._decider)
            for each in records:
                _add(fold, each, requests.get(each.id))
            plan = fold.plan
            left = {_id_of(each): each for each in plan.parked}
            failed = _find_failed(left, held)
            over = [each.id for each in records if each.id not in left]
            state = ParkedState.RELEASED if discarding is None else ParkedState.DISCARDED
            await parked_queues.end(conn, over, state, self._run_id, now)
            await parked_queues.describe(conn, list(_describe(records, requests, left, failed)))
            going_on, ended = _part_queues(records, left, held, ends)
            settled = Settled(_count(len(over), len(failed), len(left), plan, discarding), going_on, ended)
            await self._note(conn, settled)
            await write_decided(conn, plan, now)  # last: from here on every worker waits for our commit
            if probes.listeners:
                await probe("operate.before_commit")
        if probes.listeners:
            await probe("operate.after_commit")
        return plan, settled

    async def _finish(self, committed: tuple[Plan, Settled] | None) -> None:
        if committed is None:
            await self._done(0)
            return
        plan, settled = committed
        for (outcome, code), commands in Counter((row.outcome, row.code) for row in plan.journal).items():
            COMMANDS.labels(outcome, str(code)).inc(commands)
        for each in plan.defects:
            log_defect(log, "a parked record failed again: our code raised", describe_place(each.error), each.error)
        await self._done(sum(settled.counts.values()))

    def _requests(self, records: Sequence[StoredRecord]) -> dict[int, Request | Unreadable]:
        again = [record_again(each) for each in records]
        found = read_each(self._reader, again, log)
        return {stored.id: self._request(stored, each) for stored, each in zip(records, found, strict=True)}

    def _request(self, stored: StoredRecord, found: Request | Unreadable) -> Request | Unreadable:
        """A command on behalf of whoever was verified when it was parked: his rights are those he has now."""
        if isinstance(found, Unreadable):
            return found
        if stored.request_digest is not None:
            found = found._replace(digest=stored.request_digest)
        if stored.authenticated_by == AuthenticatedBy.TOKEN:
            return found._replace(actor=stored.actor, user_id=stored.actor, authorization=None)
        if isinstance(found.command, Rejected):
            return found._replace(actor=stored.actor)
        if stored.authenticated_by == AuthenticatedBy.PUBLISHER or (self._trusts and not lacks_token(stored)):
            return found
        # guarantee 8: a command whose token nobody verified is nobody's.
        command = Rejected(found.command.type, details.UNVERIFIED, ProblemType.UNAUTHENTICATED)
        return found._replace(command=command, actor=None)


def _discards(records: Sequence[StoredRecord], detail: str) -> dict[int, Request | Unreadable]:
    """Nothing has to be read for it: what our code can't read can be discarded too."""
    return {each.id: request for each in records if (request := _unread(each, detail)) is not None}


def _unread(stored: StoredRecord, detail: str) -> Request | None:
    """A parked command as far as it was read when it was parked; None for what is no command."""
    if stored.command_id is None:
        return None
    command = Rejected(read_type(stored), detail, ProblemType.DISCARDED)
    return Request(
        record_again(stored),
        stored.command_id,
        stored.org_id,
        command,
        stored.request_digest or b"",
        stored.actor,
        None,
    )


def _held_by_earlier(
    records: Sequence[StoredRecord], requests: Mapping[int, Request | Unreadable], ends: Mapping[UUID, QueueEnds]
) -> dict[UUID, int]:
    """Organizations with an open command before the first of these: theirs wait on, whoever asks for their release."""
    first: dict[UUID, int] = {}
    for each in records:
        request = requests.get(each.id)
        org_id = each.org_id or (request.org_id if isinstance(request, Request) else None)
        if org_id is not None:
            first.setdefault(org_id, each.id)
    return {
        org_id: ends[org_id].commands
        for org_id, first_id in first.items()
        if org_id in ends and ends[org_id].first_id < first_id
    }


def _add(fold: Fold, stored: StoredRecord, request: Request | Unreadable | None) -> None:
    if isinstance(request, Unreadable) and stored.command_id is not None:
        # It could be read once: what is behind it in its queue must wait on.
        unread = _unread(stored, "")
        assert unread is not None
        fold.park(unread, request.reason, request.detail)
    elif request is not None:
        fold.add(request)


def _id_of(set_aside: SetAside) -> int:
    record: Any = set_aside.unreadable.record
    assert isinstance(record, RecordAgain)
    return record.id


def _find_failed(left: Mapping[int, SetAside], held: Collection[UUID]) -> set[int]:
    """Which were tried in vain: of a queue its first command alone, whatever our code says of those behind it."""
    waiting, failed = set(held), set[int]()
    for record_id, (_, request) in left.items():
        org_id = None if request is None else request.org_id
        if org_id is None or org_id not in waiting:
            failed.add(record_id)
        if org_id is not None:
            waiting.add(org_id)
    return failed


def _describe(
    records: Sequence[StoredRecord],
    requests: Mapping[int, Request | Unreadable],
    left: Mapping[int, SetAside],
    failed: Collection[int],
) -> Iterator[ReadAgain]:
    """What is known by now of records that stay parked, and of those that could be read for the first time.

    Who was verified stays, and so do the notes on what is not kept of a record.
    """
    for stored in records:
        request, set_aside = requests.get(stored.id), left.get(stored.id)
        if set_aside is not None:
            unreadable = set_aside.unreadable
            _, separator, notes = stored.detail.partition("; ")
            reason, detail = unreadable.reason, unreadable.detail + separator + notes
        elif stored.command_id is None and isinstance(request, Request):
            reason, detail = ParkReason(stored.reason), stored.detail
            set_aside = SetAside(Unreadable(request.record, detail, reason), request)
        else:
            continue
        kept = stored if stored.command_id is not None else keep_record(set_aside)
        known = kept.org_id, kept.command_id, kept.request_digest, kept.actor, kept.authenticated_by
        yield ReadAgain(stored.id, reason, detail, int(stored.id in failed), *known)


def _count(over: int, failed: int, left: int, plan: Plan, discarding: str | None) -> Mapping[str, int]:
    counts = Counter({FAILED: failed, WAITING: left - failed})
    if discarding is None:
        counts.update(str(row.outcome) for row in plan.journal)
        counts[KNOWN] = over - len(plan.journal)
    else:
        counts[DISCARDED] = over
    return +counts


def _part_queues(
    records: Sequence[StoredRecord],
    left: Collection[int],
    held: Collection[UUID],
    ends: Mapping[UUID, QueueEnds],
) -> tuple[set[UUID], set[UUID]]:
    """Organizations whose queue goes on, and the others of these records."""
    given = Counter(each.org_id for each in records if each.org_id is not None and each.command_id is not None)
    failed = {each.org_id for each in records if each.id in left}
    going_on = {
        org_id
        for org_id, commands in given.items()
        if org_id not in failed and org_id not in held and ends[org_id].commands > commands
    }
    return going_on, given.keys() - going_on
