"""From records of the topics back to what the relay made them of. Pure.

What the journal keeps as JSON text is cut out of the bodies as it stands there, byte for byte: so the relay put it in
(`wire.changes`), and it costs a tenth of parsing and writing it again. A body of another form is parsed.

Records that neither the relay nor a worker wrote are left out: who has lost a database can't wait for clean topics.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson

from org_events.cloudevents import TRACEPARENT
from org_events.kafka.batches import UnreadBatch, WholeBatch
from org_events.kafka.whole import BatchRecord
from org_service.auth.tokens import TokenRejected, parse_bearer, read_user
from org_service.domain.organization import StoredOrganization, as_deleted, from_published, without_content
from org_service.domain.requests import Rejected, Request, read_time
from org_service.errors import PartitionUnreadableError
from org_service.kafka.client import TopicPartition
from org_service.kafka.reader import Record
from org_service.kafka.whole_batches import Unopened
from org_service.store.staged import Changed, CommandRow, OutcomeRow, Versions
from org_service.telemetry.logs import get_logger
from org_service.wire.changes import RUN_HEADER
from org_service.wire.ids import make_uuid

log = get_logger(__name__)

_EVENT: Final = re.compile(
    rb'\{"org_id":"(.{36})","version":([0-9]+),"position":([0-9]+),"changed":(\[[a-z_",]*\]),'
    rb'"before":(null|\{.*\}),"after":(null|\{.*\}),"command_id":"(.{36})","actor":(null|".*"),'
    rb'"recorded_at":"([^"]+)"\}',
    re.DOTALL,
)
"""As the relay writes it. A quote in a text has a backslash before it: so none looks like the name of a member."""
_POSITION: Final = re.compile(rb'"position":([0-9]+),"problem":.*"final":true\}', re.DOTALL)
"""Of a final outcome; the end of its body."""
_RESULTS: Final = re.compile(rb'"position":([0-9]+),"problem":')
_STATES: Final = re.compile(rb"ce_position.([0-9]+)", re.DOTALL)
"""In a batch as it stands in the log: the name of a header, the length of its value in a byte, the value."""
_NULL: Final = b"null"
_OURS: Final = "ce_commandid"
"""All events and results have it."""
_STATE: Final = "ce_orgversion"
"""All states and tombstones have it."""
_CACHED: Final = 4_096
"""Moments and actors: a worker's batch has one of the former, and few people make many changes."""

Headers = dict[str, bytes | None]


class Window(NamedTuple):
    """Which positions are asked for."""

    after: int
    through: int


class Glimpse(NamedTuple):
    """What positions a batch is about. It is opened only where one of them has no row, because to take a record apart
    costs ten times as much, mostly for its headers.
    """

    batch: Unopened
    positions: list[int]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def whole(self) -> bool:
        """Whether the positions are those of all records."""
        content = self.batch.content
        return isinstance(content, WholeBatch) and content.records == len(self.positions)


def glimpse_results(batch: Unopened) -> Glimpse:
    """Look at a batch of results."""
    return Glimpse(batch, [int(each) for each in _RESULTS.findall(batch.content)])


def glimpse_states(batch: Unopened) -> Glimpse:
    """Look at a batch of states."""
    return Glimpse(batch, [int(each) for each in _STATES.findall(batch.content)])


def _own(at: TopicPartition, records: Sequence[BatchRecord], mark: str) -> Iterator[tuple[BatchRecord, Headers]]:
    """Those that have a header of ours.

    Raises:
        PartitionUnreadableError: A batch is broken: what it has may be ours.
    """
    for record in records:
        headers = dict(record.headers)
        if mark in headers:
            yield record, headers
        elif isinstance(record.value, UnreadBatch):
            raise PartitionUnreadableError(
                f"{at.topic}, partition {at.partition}: the batch at offset {record.offset} cannot be read "
                f"({record.value.why}). See 'A partition cannot be read' in docs/operating.md."
            )
        else:
            log.warning(
                "a record of somebody else is left out", topic=at.topic, partition=at.partition, offset=record.offset
            )


def read_events(at: TopicPartition, records: Sequence[BatchRecord], window: Window) -> Iterator[OutcomeRow]:
    """Read changes of some positions; not those that a replay sent again."""
    for record, headers in _own(at, records, _OURS):
        if RUN_HEADER in headers:
            continue
        event = _cut_event(record.value or b"", headers) or _parse_event(record.value or b"", headers)
        if window.after < event.position <= window.through:
            yield event


def _cut_event(body: bytes, headers: Headers) -> OutcomeRow | None:
    """None where the body isn't as the relay writes it."""
    found = _EVENT.fullmatch(body)
    if found is None:
        return None
    org_id, version, position, changed, before, after, command_id, actor, recorded_at = found.groups()
    return OutcomeRow(
        position=int(position),
        command_id=command_id.decode(),
        org_id=org_id.decode(),
        version=int(version),
        event_type=_decoded(headers["ce_type"]),
        outcome="applied",
        code=200,
        actor=_actor(actor),
        changed=changed.decode(),
        before=None if before == _NULL else before.decode(),
        after=None if after == _NULL else after.decode(),
        problem=None,
        traceparent=_decoded(headers.get(TRACEPARENT)),
        recorded_at=_moment(recorded_at),
    )


def _parse_event(body: bytes, headers: Headers) -> OutcomeRow:
    event = orjson.loads(body)
    return OutcomeRow(
        position=event["position"],
        command_id=event["command_id"],
        org_id=event["org_id"],
        version=event["version"],
        event_type=_decoded(headers["ce_type"]),
        outcome="applied",
        code=200,
        actor=event["actor"],
        changed=orjson.dumps(event["changed"]).decode(),
        before=_text(event["before"]),
        after=_text(event["after"]),
        problem=None,
        traceparent=_decoded(headers.get(TRACEPARENT)),
        recorded_at=_moment(event["recorded_at"].encode()),
    )


class Outcome(NamedTuple):
    """A final outcome, not yet read: nearly all are of changes, whose events say as much."""

    position: int
    record: BatchRecord


def read_results(at: TopicPartition, records: Sequence[BatchRecord], window: Window) -> Iterator[Outcome | UUID]:
    """Read outcomes of some positions, and the ids of commands that were parked."""
    for record, _ in _own(at, records, _OURS):
        if (found := _POSITION.search(record.value or b"")) is not None:
            position = int(found[1])
        else:
            body = orjson.loads(record.value or b"")
            if not body["final"]:
                yield make_uuid(body["command_id"])
            position = body["position"] or 0
        if window.after < position <= window.through:
            yield Outcome(position, record)


def read_outcome(record: BatchRecord) -> OutcomeRow:
    """Read a final outcome of which there is no event."""
    body, headers = orjson.loads(record.value or b""), dict(record.headers)
    return OutcomeRow(
        position=body["position"],
        command_id=body["command_id"],
        org_id=body["org_id"],
        version=body["version"],
        event_type=None,
        outcome=body["outcome"],
        code=body["code"],
        actor=None,
        changed=None,
        before=None,
        after=_text(body["organization"]),
        problem=_text(body["problem"]),
        traceparent=_decoded(headers.get(TRACEPARENT)),
        recorded_at=_moment(headers["ce_time"] or b""),
    )


class State(NamedTuple):
    """An organization as of a position, or that there is none any more; not yet read."""

    position: int
    org_id: UUID
    version: int
    record: BatchRecord


def read_states(at: TopicPartition, records: Sequence[BatchRecord], through: int) -> Iterator[State]:
    """Read whose states there are, as of a position or before."""
    for record, headers in _own(at, records, _STATE):
        position = int(headers.get("ce_position") or b"0")
        if position <= through:
            yield State(position, make_uuid((record.key or b"").decode()), int(headers[_STATE] or b"0"), record)


def read_organizations(states: Sequence[State], newer: Versions) -> list[StoredOrganization]:
    """Read the last states of organizations of which no such version is known."""
    last = {state.org_id: state for state in states if newer.get(state.org_id) == state.version}
    return [
        without_content(org_id, state.version, read_time(state.record.timestamp))
        if state.record.value is None
        else from_published(orjson.loads(state.record.value))
        for org_id, state in last.items()
    ]


def read_changed(changed: Changed) -> StoredOrganization:
    """An organization as its last change left it; of an erased one, with the times of its last change that says any."""
    if changed.after is not None:
        return from_published(orjson.loads(changed.after))
    if changed.before is not None:
        return as_deleted(from_published(orjson.loads(changed.before)), changed.version, changed.recorded_at)
    empty = without_content(changed.org_id, changed.version, changed.recorded_at)
    if changed.earlier is None:
        return empty
    known = read_changed(changed.earlier)
    return empty._replace(
        created_at=known.created_at,
        deactivated_at=known.deactivated_at,
        deleted_at=known.deleted_at or empty.deleted_at,
    )


def read_command(request: Request, *, trusts: bool) -> CommandRow:
    """A command as it is kept; its actor is whom its token names, which nobody verified here.

    Where the outcome is none of 401 the worker had verified it, and of those the actor isn't kept.
    """
    record = request.record
    return CommandRow(
        command_id=request.command_id,
        org_id=request.org_id,
        command_type=request.command.type,
        actor=_user(request, trusts=trusts),
        request_digest=request.digest,
        partition=record.partition,
        offset=record.offset,
        time_ms=record.timestamp,
        traceparent=request.traceparent,
    )


def _user(request: Request, *, trusts: bool) -> str | None:
    if request.authorization is None:
        return request.actor if trusts else None
    if isinstance(request.command, Rejected):
        return None
    try:
        return read_user(parse_bearer(request.authorization))
    except TokenRejected:
        return None


def _text(part: Any) -> str | None:
    return None if part is None else orjson.dumps(part).decode()


def _decoded(header: bytes | None) -> str | None:
    return None if header is None else header.decode()


@lru_cache(maxsize=_CACHED)
def _moment(text: bytes) -> datetime:
    return datetime.fromisoformat(text.decode())


@lru_cache(maxsize=_CACHED)
def _actor(text: bytes) -> str | None:
    return orjson.loads(text)


def is_ours(record: Record) -> bool:
    """Whether a change or an outcome is the service's: what a foreign program wrote says nothing about the journal."""
    return any(name == _OURS for name, _ in record.headers)


def read_position(record: Record) -> tuple[int | None, UUID]:
    """The position and the command id of a change or an outcome; no position where it was not journaled."""
    body = orjson.loads(record.value or b"")
    return body["position"], UUID(body["command_id"])
