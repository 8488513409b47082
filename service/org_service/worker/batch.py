"""One batch, folded in memory: what to write, what to set aside, which outcomes to send again. Pure.

The fold keeps a working view of organizations and of who holds which name, so that every command sees what the ones
before it in the same batch did, as if each had its own transaction. JSON of an organization is made once and serves
as the `after` of one change and the `before` of the next.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, NamedTuple
from uuid import UUID

import orjson

from org_events.commands import CreateOrganization, DeleteOrganization, RestoreOrganization, UpdateOrganization
from org_events.results import Outcome, ProblemType
from org_service.domain.access import NO_RELATIONS, TRUSTED, Access, Relations, command_access
from org_service.domain.decide import Decision, decide, refuse
from org_service.domain.organization import Organization, changed_fields, moment_after, name_key, to_json
from org_service.domain.policy import Policy
from org_service.store.statements import Journaled, JournalEntry, ParkedRow
from org_service.telemetry import get_logger
from org_service.worker.records import Record, Refused, Request, Unreadable, broker_time, kept_headers, kept_key

log = get_logger(__name__)


class Snapshot(NamedTuple):
    """What the database knows of a batch, read under the locks."""

    organizations: dict[UUID, Organization]
    journaled: Mapping[UUID, Journaled]
    held: set[UUID]
    """Organizations with an open parked command."""
    parked: dict[UUID, bytes]
    """The open parked commands among those of the batch: their ids and digests."""
    holders: dict[str, UUID]
    relations: Relations = NO_RELATIONS
    clients: Mapping[UUID, Sequence[tuple[UUID, bool]]] = MappingProxyType({})
    """Of organizations that may be deleted: whom they serve as partners, and whether that one is alive."""


class Reply(NamedTuple):
    """An outcome that the worker itself sends after the commit, because the relay won't.

    `of` is the journaled outcome to repeat, or the index of a row of this batch's journal; None for `parked` and
    `reused` (the command id belongs to another payload).
    """

    kind: Literal["duplicate", "parked", "reused"]
    request: Request
    of: Journaled | int | None = None


@dataclass(slots=True)
class Plan:
    """Everything that becomes of a batch."""

    created: dict[UUID, Organization] = field(default_factory=dict[UUID, Organization])
    updated: dict[UUID, Organization] = field(default_factory=dict[UUID, Organization])
    claimed: set[str] = field(default_factory=set[str])
    """Every `name_key` that an organization took at some time in the batch."""
    names: bool = False
    """Whether an organization took a name or gave one up."""
    journal: list[JournalEntry] = field(default_factory=list[JournalEntry])
    parked: list[ParkedRow] = field(default_factory=list[ParkedRow])
    replies: list[Reply] = field(default_factory=list[Reply])
    redelivered: int = 0

    def passing_names(self) -> set[str]:
        """Names that were taken and given up again in the batch: no unique index guards what is never written."""
        kept = {organization.name_key for organization in (*self.created.values(), *self.updated.values())}
        return self.claimed - kept


def restored(requests: Iterable[Request]) -> list[UUID]:
    """The organizations that a command of the batch would restore: they claim the names they had."""
    return [request.command.org_id for request in requests if isinstance(request.command, RestoreOrganization)]


def names_wanted(requests: Iterable[Request], names: Mapping[UUID, str]) -> set[str]:
    """Every `name_key` that a command of the batch may claim; `names` are those of restored organizations."""
    keys = {name_key(name) for name in names.values()}
    for request in requests:
        command = request.command
        if isinstance(command, CreateOrganization) or (
            isinstance(command, UpdateOrganization) and "name" in command.model_fields_set
        ):
            keys.add(name_key(command.name))
    return keys


def pairs_asked(requests: Iterable[Request]) -> set[tuple[str, UUID]]:
    """Which users act on which organizations; trusted publishers aren't asked about."""
    return {
        (request.user_id, request.org_id)
        for request in requests
        if request.user_id is not None and request.org_id is not None
    }


def deleted(requests: Iterable[Request]) -> list[UUID]:
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


def park_row(unreadable: Unreadable, request: Request | None = None) -> ParkedRow:
    """The row that keeps a record for an operator, with its bytes and coordinates."""
    record, detail, reason = unreadable
    key, about_key = kept_key(record)
    headers, about_headers = kept_headers(record)
    return ParkedRow(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        broker_time=broker_time(record),
        key=key,
        value=record.value,
        headers=headers,
        org_id=None if request is None else request.org_id,
        command_id=None if request is None else request.command_id,
        request_digest=None if request is None else request.digest,
        reason=reason,
        detail="; ".join(filter(None, (detail, about_key, about_headers))),
    )


class Fold:
    """Folds records, in order, into a `Plan`."""

    def __init__(
        self, snapshot: Snapshot, now: datetime, policy: Policy | None = None, *, refused: str | None = None
    ) -> None:
        """Begin.

        Args:
            snapshot: What the database knows; the fold works on it.
            now: When the batch is recorded, if no organization in it was changed later than that (by another clock).
            policy: What each role is denied; None where all publishers are trusted.
            refused: Why the database refuses the one command of this batch, which is then parked undecided (unless
                somebody else has decided it meanwhile).
        """
        self.plan = Plan()
        self._policy = policy
        self._relations = snapshot.relations
        self._clients = snapshot.clients
        self._organizations = snapshot.organizations
        self._holders = snapshot.holders
        self._journaled = snapshot.journaled
        self._now = now
        self._refused = refused
        self._rows: dict[UUID, tuple[int, bytes]] = {}  # command ids of this batch: journal row, digest
        self._parked = snapshot.parked  # command ids set aside, and their digests
        self._held = snapshot.held  # organizations that wait for an operator
        self._json: dict[UUID, tuple[Organization, str]] = {}

    def add(self, request: Request | Unreadable) -> None:
        """Fold one more record. A command that makes `decide` raise is parked; the rest goes on."""
        if isinstance(request, Unreadable):
            self.plan.parked.append(park_row(request))
        elif not self._known(request):
            if request.org_id in self._held and not isinstance(request.command, Refused):
                self.park(request, "queued_behind", "An earlier command of this organization is parked.")
            elif self._refused is not None:
                self.park(request, "data_refused", self._refused)
            else:
                self._decide(request)

    def park(self, request: Request, reason: str, detail: str) -> None:
        """Set a command aside, and with it the later ones of its organization."""
        self.plan.parked.append(park_row(Unreadable(request.record, detail, reason), request))
        self.plan.replies.append(Reply("parked", request))
        self._parked[request.command_id] = request.digest
        if request.org_id is not None:
            self._held.add(request.org_id)

    def _known(self, request: Request) -> bool:
        """Whether the command id was seen before; then its reply is planned."""
        first: Journaled | int
        known = self._journaled.get(request.command_id)
        if known is not None:
            if _is_redelivery(known, request.record):
                self.plan.redelivered += 1  # the relay publishes this outcome
                return True
            first, digest = known, known.request_digest
        elif request.command_id in self._rows:
            first, digest = self._rows[request.command_id]
        elif request.command_id in self._parked:
            same = self._parked[request.command_id] == request.digest
            self.plan.replies.append(Reply("parked" if same else "reused", request))
            return True
        else:
            return False
        self.plan.replies.append(
            Reply("duplicate", request, first) if digest == request.digest else Reply("reused", request)
        )
        return True

    def _decide(self, request: Request) -> None:
        try:
            decision, row = self._outcome(request)
        except Exception as error:  # a defect of ours must not hold up other organizations
            log.exception("command parked: our code raised", command_id=str(request.command_id))
            self.park(request, "handler_raised", where(error))
            return
        if decision.event is not None:
            assert decision.after is not None
            self._apply(decision.before, decision.after)
        self._rows[request.command_id] = (len(self.plan.journal), request.digest)
        self.plan.journal.append(row)

    def _outcome(self, request: Request) -> tuple[Decision, JournalEntry]:
        """The decision and its row; changes nothing but the cache of JSON, so it may fail anywhere."""
        command, org_id = request.command, request.org_id
        now = self._now
        if isinstance(command, Refused):
            decision = refuse(command.problem, command.detail)
        else:
            assert org_id is not None
            organization = self._organizations.get(org_id)
            now = moment_after(organization, now)
            access = TRUSTED if request.user_id is None else self._access(request.user_id, command.type, org_id)
            is_partner = org_id in self._clients and self._serves_others(org_id)
            decision = decide(command, organization, self._holders, now, access, is_partner=is_partner)
        event, before, after = decision.event, decision.before, decision.after
        changed = None
        if event is not None:
            changed = _names_json(changed_fields(before, after))
        record = request.record
        # By position, in the order of its fields: half the cost, and this is the hottest place of the worker.
        return decision, JournalEntry(
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

    def _access(self, user_id: str, command_type: str, org_id: UUID) -> Access | None:
        assert self._policy is not None
        relations = self._relations
        return command_access(
            command_type,
            self._organizations.get(org_id),
            memberships=relations.memberships.get(user_id, {}),
            partnerships=relations.partnerships.get(org_id, ()),
            staff=user_id in relations.staff,
            policy=self._policy,
        )

    def _serves_others(self, org_id: UUID) -> bool:
        """Whether an organization is partner of one that is there; of itself doesn't count, or it could never go."""
        return any(client != org_id and self._is_alive(client, alive) for client, alive in self._clients[org_id])

    def _is_alive(self, org_id: UUID, before: bool) -> bool:
        """Whether an organization is there now, as far as this batch knows; `before` as far as the database does."""
        organization = self._organizations.get(org_id)
        return before if organization is None else organization.deleted_at is None

    def _to_json(self, organization: Organization) -> str:
        """Each organization's last JSON is kept: the `after` of one change is the `before` of the next."""
        kept = self._json.get(organization.id)
        if kept is not None and kept[0] is organization:
            return kept[1]
        made = to_json(organization)
        self._json[organization.id] = (organization, made)
        return made

    def _apply(self, before: Organization | None, after: Organization) -> None:
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


def _is_redelivery(known: Journaled, record: Record) -> bool:
    """Whether this is the very record that was decided, and not the command sent again.

    Coordinates alone don't tell: a topic that is created again, or lost its end, gives offsets out again, to records
    that the broker took at another time. Rows of older releases don't have the time; theirs lies before the decision.
    """
    if (known.command_partition, known.command_offset) != (record.partition, record.offset):
        return False
    if known.command_time_ms is None:
        return broker_time(record) <= known.recorded_at
    return known.command_time_ms == record.timestamp


@lru_cache(maxsize=16)
def _names_json(names: tuple[str, ...]) -> str:
    """There are few combinations of changed fields."""
    return orjson.dumps(names).decode()


def parked_outcome() -> Decision:
    """The outcome, not final, of a command set aside."""
    parked = refuse(ProblemType.PARKED, "The service could not decide; the command is kept and an operator will.")
    return parked._replace(outcome=Outcome.PARKED)


def where(error: Exception) -> str:
    """The type and place of a defect, without its message, which may quote the payload."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"
    return f"{type(error).__name__}{place}"
