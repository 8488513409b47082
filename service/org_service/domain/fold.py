"""One batch, folded in memory: what to write, what to park, which outcomes to send again.

No I/O and no clock: the same records and the same data give the same plan. The fold keeps a working view of
organizations and of who holds which name, so that every command sees what the ones before it in the same batch did, as
if each had its own transaction. That view is the snapshot it is given: a snapshot serves one fold. JSON of an
organization is made once and serves as the `after` of one change and the `before` of the next.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Literal, NamedTuple
from uuid import UUID

import orjson

from org_events.commands import (
    Command,
    CreateOrganization,
)
from org_events.results import Outcome, ProblemType
from org_service import probes
from org_service.domain import details
from org_service.domain.access import TRUSTED, Access, decide_command_access
from org_service.domain.decide import Decision, Invalid, decide, reject, reject_stateless
from org_service.domain.organization import StoredOrganization, choose_moment, find_changed_fields, to_json
from org_service.domain.outcomes import KnownOutcome, NewOutcome
from org_service.domain.policy import Policy
from org_service.domain.reasons import ParkReason, SkipReason
from org_service.domain.requests import Record, Rejected, Request, SetAside, Unreadable, read_broker_time
from org_service.domain.snapshot import Snapshot

ReplyKind = Literal[SkipReason.DUPLICATE, SkipReason.PARKED, SkipReason.COMMAND_ID_REUSED]
Decider = Callable[..., Decision]
"""What `decide` is."""


class Reply(NamedTuple):
    """An outcome that the worker itself sends after the commit, because the relay won't.

    `of` is the journaled outcome to repeat, or the index of a row of this batch's journal; None for `PARKED` and
    `COMMAND_ID_REUSED` (the command id belongs to another payload).
    """

    kind: ReplyKind
    request: Request
    of: KnownOutcome | int | None = None


class Defect(NamedTuple):
    """Our code raised on a record, which is to be parked."""

    record: Record
    command_id: UUID | None
    """None where it could not even be read."""
    organization: str
    """Whose it is, as text; the record's key where nothing was read of it."""
    tried: int
    """How many commands of the batch our code had tried to decide before."""
    error: Exception


@dataclass(slots=True)
class Plan:
    """Everything that becomes of a batch."""

    created: dict[UUID, StoredOrganization] = field(default_factory=dict[UUID, StoredOrganization])
    updated: dict[UUID, StoredOrganization] = field(default_factory=dict[UUID, StoredOrganization])
    claimed: set[str] = field(default_factory=set[str])
    """Every `name_key` that an organization took at some time in the batch."""
    names: bool = False
    """Whether an organization took a name or gave one up."""
    journal: list[NewOutcome] = field(default_factory=list[NewOutcome])
    parked: list[SetAside] = field(default_factory=list[SetAside])
    defects: list[Defect] = field(default_factory=list[Defect])
    rejected_unjudged: int = 0
    """Rows of the journal for which nothing had to be decided: what was read is no command, or nobody's."""
    replies: list[Reply] = field(default_factory=list[Reply])
    redelivered: int = 0

    @property
    def tried(self) -> int:
        """How many commands our code decided, or raised on; not those that wait behind others, or were known."""
        return len(self.journal) - self.rejected_unjudged + len(self.defects)

    def find_passing_names(self) -> set[str]:
        """Names that were taken and given up again in the batch: no unique index guards what is never written."""
        kept = {organization.name_key for organization in (*self.created.values(), *self.updated.values())}
        return self.claimed - kept


class Fold:
    """Folds records, in order, into a `Plan`."""

    def __init__(
        self,
        snapshot: Snapshot,
        now: datetime,
        policy: Policy | None = None,
        *,
        queued_max: int,
        refused: str | None = None,
        decider: Decider | None = None,
    ) -> None:
        """Begin.

        Args:
            snapshot: What the database knows.
            now: When the batch is recorded, if no organization in it was changed later than that (by another clock).
            policy: What each role is denied; None where all publishers are trusted.
            queued_max: How many open parked commands one organization may have.
            refused: Why the database refuses the one command of this batch, which is then parked undecided (unless
                somebody else has decided it meanwhile).
            decider: Decides each command, in place of `decide`.
        """
        self.plan = Plan()
        self._policy = policy
        self._relations = snapshot.relations
        self._clients = snapshot.clients
        self._journaled = snapshot.journaled
        # The working view: what is true after each command of the batch.
        self._organizations = dict(snapshot.organizations)
        self._holders = dict(snapshot.holders)
        self._parked = dict(snapshot.parked)  # command ids set aside, and their digests
        self._held = dict(snapshot.held)  # organizations that wait for an operator
        self._now = now
        self._queued_max = queued_max
        self._refused = refused
        self._decider = decider or decide
        self._rows: dict[UUID, tuple[int, bytes]] = {}  # command ids of this batch: journal row, digest
        self._json: dict[UUID, tuple[StoredOrganization, str]] = {}

    def add(self, request: Request | Unreadable) -> None:
        """Fold one more record. A command that makes `decide` raise is parked; the rest continues."""
        if isinstance(request, Unreadable):
            # guarantee 2: what cannot be read is parked, not dropped.
            if request.error is not None:
                self._note(request.record, None, (request.record.key or b"").decode("latin-1").lower(), request.error)
            self.plan.parked.append(SetAside(request))
        elif not self._known(request):
            if self._refused is not None:
                self.park(request, ParkReason.DATA_REFUSED, self._refused)
            else:
                self._decide(request)

    def park(self, request: Request, reason: ParkReason, detail: str) -> None:
        """Set a command aside, and with it the later ones of its organization."""
        self.plan.parked.append(SetAside(Unreadable(request.record, detail, reason), request))
        self.plan.replies.append(Reply(SkipReason.PARKED, request))
        self._parked[request.command_id] = request.digest
        if request.org_id is not None:
            self._held[request.org_id] = self._held.get(request.org_id, 0) + 1

    def _note(self, record: Record, command_id: UUID | None, organization: str, error: Exception) -> None:
        self.plan.defects.append(Defect(record, command_id, organization, self.plan.tried, error))

    def _known(self, request: Request) -> bool:
        """Whether the command id was seen before; then its reply is planned."""
        first: KnownOutcome | int
        # guarantee 1: a command id that was decided is never decided again, whatever its payload is.
        known = self._journaled.get(request.command_id)
        if known is not None:
            if is_redelivery(known, request.record):
                self.plan.redelivered += 1  # the relay publishes this outcome
                return True
            first, digest = known, known.request_digest
        elif request.command_id in self._rows:
            first, digest = self._rows[request.command_id]
        elif request.command_id in self._parked:
            same = self._parked[request.command_id] == request.digest
            self.plan.replies.append(Reply(SkipReason.PARKED if same else SkipReason.COMMAND_ID_REUSED, request))
            return True
        else:
            return False
        self.plan.replies.append(
            Reply(SkipReason.DUPLICATE, request, first)
            if is_same_request(digest, request.digest)
            else Reply(SkipReason.COMMAND_ID_REUSED, request)
        )
        return True

    def _decide(self, request: Request) -> None:
        try:
            if probes.listeners:
                probes.notify("apply.before_decide", request)
            decision = self._decision(request)
            row = None if decision is None else self._row(request, decision)
        # guarantee 7: a command that our code fails on is parked alone; the rest of the batch is decided.
        except Exception as error:  # noqa: BLE001 - a defect of ours must not hold up other organizations
            self._note(request.record, request.command_id, str(request.org_id), error)
            self.park(request, ParkReason.HANDLER_RAISED, describe_place(error))
            return
        if decision is None or row is None:
            self.park(request, ParkReason.QUEUED_BEHIND, "An earlier command of this organization is parked.")
            return
        if decision.event is not None:
            assert decision.after is not None
            self._apply(decision.before, decision.after)
        self._rows[request.command_id] = (len(self.plan.journal), request.digest)
        self.plan.journal.append(row)

    def _decision(self, request: Request) -> Decision | None:
        """The outcome of a command; None where it waits for earlier ones of its organization."""
        command, org_id = request.command, request.org_id
        if isinstance(command, Rejected):
            self.plan.rejected_unjudged += 1
            return reject(command.problem, command.detail)
        assert org_id is not None
        # guarantee 7: only later commands of the same organization wait behind a parked one.
        if org_id in self._held:
            return self._rejection_in_queue(request, command, org_id)
        organization = self._organizations.get(org_id)
        access = self._access(request, org_id)
        is_partner = org_id in self._clients and self._serves_others(org_id)
        return self._decider(command, organization, self._holders, self._moment(org_id), access, is_partner=is_partner)

    def _rejection_in_queue(self, request: Request, command: Command | Invalid, org_id: UUID) -> Decision | None:
        """The rejection that no earlier command can change, or that of a full queue; None for a command that waits.

        Visibility comes first: that an organization's commands wait is nothing for those who can't see it, and only who
        may do what they ask for can fill its queue.
        """
        organization = self._organizations.get(org_id)
        if organization is not None and command.type == CreateOrganization.type:
            # Whatever comes before it: the id is taken for good.
            return self._decider(
                command, organization, self._holders, self._moment(org_id), self._access(request, org_id)
            )
        # guarantee 8: a queue reveals nothing to those who cannot see its organization, and holds nothing of theirs.
        access = self._access(request, org_id, if_there=org_id)
        there = organization is not None and organization.deleted_at is None
        version = organization.version if organization is not None and there else None
        rejection = reject_stateless(command, access, version)
        if rejection is not None or self._held[org_id] < self._queued_max:
            return rejection
        return reject(ProblemType.QUEUE_FULL, details.queue_full(self._held[org_id]), version)

    def _moment(self, org_id: UUID) -> datetime:
        """When a decision about an organization is made."""
        return choose_moment(self._organizations.get(org_id), self._now)

    def _row(self, request: Request, decision: Decision) -> NewOutcome:
        """The row of a decision; changes nothing but the cache of JSON, so it may fail anywhere."""
        command, org_id = request.command, request.org_id
        now = self._now if isinstance(command, Rejected) or org_id is None else self._moment(org_id)
        event, before, after = decision.event, decision.before, decision.after
        changed = None
        if event is not None:
            changed = _names_json(find_changed_fields(before, after))
        record = request.record
        # By position, in the order of its fields: half the cost, and this is the hottest place of the worker.
        return NewOutcome(
            request.command_id,
            org_id,
            decision.version,
            command.type,
            event,
            decision.outcome,
            decision.code,
            request.actor,
            request.digest,
            record.partition,
            record.offset,
            changed,
            None if before is None else self._to_json(before),
            None if after is None or after.deleted_at is not None else self._to_json(after),
            None if decision.problem is None else decision.problem.model_dump_json(),
            request.traceparent,
            now,
            record.timestamp,
        )

    def _access(self, request: Request, org_id: UUID, if_there: UUID | None = None) -> Access | None:
        if request.user_id is None:
            return TRUSTED
        assert self._policy is not None
        relations = self._relations
        return decide_command_access(
            request.command.type,
            self._organizations.get(org_id),
            memberships=relations.memberships.get(request.user_id, {}),
            partnerships=relations.partnerships.get(org_id, ()),
            staff=request.user_id in relations.staff,
            policy=self._policy,
            if_there=if_there,
        )

    def _serves_others(self, org_id: UUID) -> bool:
        """Whether an organization is partner of one that is there; of itself doesn't count, or it could never go."""
        return any(client != org_id and self._is_alive(client, alive) for client, alive in self._clients[org_id])

    def _is_alive(self, org_id: UUID, before: bool) -> bool:
        """Whether an organization is there now, as far as this batch knows; `before` as far as the database does."""
        organization = self._organizations.get(org_id)
        return before if organization is None else organization.deleted_at is None

    def _to_json(self, organization: StoredOrganization) -> str:
        """Each organization's last JSON is kept: the `after` of one change is the `before` of the next."""
        kept = self._json.get(organization.id)
        if kept is not None and kept[0] is organization:
            return kept[1]
        made = to_json(organization)
        self._json[organization.id] = (organization, made)
        return made

    def _apply(self, before: StoredOrganization | None, after: StoredOrganization) -> None:
        plan, org_id = self.plan, after.id
        known = self._organizations.get(org_id)
        if known is None or org_id in plan.created:
            plan.created[org_id] = after
        else:
            plan.updated[org_id] = after
        old_key = None if before is None else before.name_key
        if old_key != after.name_key:
            plan.names = True
            if old_key is not None:
                self._holders.pop(old_key, None)
            if after.name_key is not None:
                self._holders[after.name_key] = org_id
                plan.claimed.add(after.name_key)
        self._organizations[org_id] = after


def is_redelivery(known: KnownOutcome | NewOutcome, record: Record) -> bool:
    """Whether this is the very record that was decided, and not the command sent again.

    Coordinates alone don't tell: a topic that is created again, or lost its end, gives offsets out again, to records
    that the broker took at another time. Rows of older releases don't have the time; theirs lies before the decision.
    """
    if (known.command_partition, known.command_offset) != (record.partition, record.offset):
        return False
    if known.command_time_ms is None:
        return read_broker_time(record) <= known.recorded_at
    return known.command_time_ms == record.timestamp


def is_same_request(known: bytes, given: bytes) -> bool:
    """Whether a command that comes again is the one that was decided, by their digests.

    Of one whose organization was erased the digest is gone, since it would confirm a guess of what the command said:
    whatever comes under its id gets the outcome that is left.
    """
    return not known or known == given


@lru_cache(maxsize=16)
def _names_json(names: tuple[str, ...]) -> str:
    """There are few combinations of changed fields."""
    return orjson.dumps(names).decode()


def make_parked_outcome() -> Decision:
    """The outcome, not final, of a command set aside."""
    parked = reject(ProblemType.PARKED, details.PARKED)
    return parked._replace(outcome=Outcome.PARKED)


def describe_place(error: Exception) -> str:
    """The type and place of a defect, without its message, which may quote the payload."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"
    return f"{type(error).__name__}{place}"
