"""From records of the topics back to what the relay made them of. Pure.

What the journal keeps as JSON text was put into the bodies as it was; here it is parsed and written again by the same
library, which gives the same bytes.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from org_events.cloudevents import TRACEPARENT
from org_service.auth.tokens import TokenRejected, parse_bearer, read_user
from org_service.domain.organization import StoredOrganization, as_deleted, from_published, without_content
from org_service.domain.requests import Rejected, Request, read_broker_time
from org_service.kafka.reader import Record
from org_service.store.staged import CommandRow, EventRow, ResultRow
from org_service.wire.changes import RUN_HEADER


class Outcomes(NamedTuple):
    """What `orgs.results` says."""

    results: list[ResultRow]
    parked: set[UUID]
    """Commands that were not decided yet."""


def read_results(records: Iterable[Record], after: int, through: int) -> Outcomes:
    """Read results of positions behind one, up to another, and of what was parked."""
    found = Outcomes([], set())
    for record in records:
        body, headers = orjson.loads(record.value or b""), dict(record.headers)
        position, command_id = body["position"], UUID(body["command_id"])
        if not body["final"]:
            found.parked.add(command_id)
        elif position is not None and after < position <= through:
            found.results.append(
                ResultRow(
                    position=position,
                    command_id=command_id,
                    org_id=None if body["org_id"] is None else UUID(body["org_id"]),
                    version=body["version"],
                    outcome=body["outcome"],
                    code=body["code"],
                    organization=_text(body["organization"]),
                    problem=_text(body["problem"]),
                    traceparent=_decoded(headers.get(TRACEPARENT)),
                    recorded_at=_moment(_decoded(headers["ce_time"])),
                )
            )
    return found


class Changes(NamedTuple):
    """What `orgs.events` says."""

    events: list[EventRow]
    organizations: list[StoredOrganization]
    """As the last of these changes of each left it."""


def read_events(records: Iterable[Record], after: int, through: int) -> Changes:
    """Read changes of positions behind one, up to another; not those that a replay sent again."""
    events: list[EventRow] = []
    last: dict[UUID, StoredOrganization] = {}
    for record in records:
        headers = dict(record.headers)
        body = orjson.loads(record.value or b"")
        if RUN_HEADER in headers or not after < body["position"] <= through:
            continue
        event = EventRow(
            position=body["position"],
            command_id=UUID(body["command_id"]),
            org_id=UUID(body["org_id"]),
            version=body["version"],
            event_type=_decoded(headers["ce_type"]) or "",
            actor=body["actor"],
            changed=orjson.dumps(body["changed"]).decode(),
            before=_text(body["before"]),
            after=_text(body["after"]),
            traceparent=_decoded(headers.get(TRACEPARENT)),
            recorded_at=_moment(body["recorded_at"]),
        )
        events.append(event)
        known = last.get(event.org_id)
        if known is None or known.version < event.version:
            last[event.org_id] = _organization(event, body, known)
    return Changes(events, list(last.values()))


def _organization(event: EventRow, body: Mapping[str, Any], known: StoredOrganization | None) -> StoredOrganization:
    if body["after"] is not None:
        return from_published(body["after"])
    if body["before"] is not None:
        return as_deleted(from_published(body["before"]), event.version, event.recorded_at)
    empty = without_content(event.org_id, event.version, event.recorded_at)
    if known is None:
        return empty
    return empty._replace(
        created_at=known.created_at,
        deactivated_at=known.deactivated_at,
        deleted_at=known.deleted_at or empty.deleted_at,
    )


class States(NamedTuple):
    """What `orgs.state` says; the last of each."""

    organizations: list[StoredOrganization]
    deleted: list[StoredOrganization]
    """Without what they were."""


def read_states(records: Iterable[Record], through: int) -> States:
    """Read organizations as of a position or before."""
    kept: dict[UUID, StoredOrganization] = {}
    deleted: dict[UUID, StoredOrganization] = {}
    for record in records:
        headers = dict(record.headers)
        if int(headers.get("ce_position") or b"0") > through:
            continue
        org_id = UUID((record.key or b"").decode())
        if record.value is None:
            kept.pop(org_id, None)
            version = int(headers["ce_orgversion"] or b"0")
            deleted[org_id] = without_content(org_id, version, read_broker_time(record))
        else:
            deleted.pop(org_id, None)
            kept[org_id] = from_published(orjson.loads(record.value))
    return States(list(kept.values()), list(deleted.values()))


def read_command(request: Request, *, trusts: bool) -> CommandRow:
    """A command as it is kept; its actor is whom its token names, which nobody verified here.

    Where the outcome is none of 401 the worker had verified it, and of those the actor isn't kept.
    """
    record = request.record
    return CommandRow(
        command_id=request.command_id,
        org_id=request.org_id,
        command_type=request.command.type,
        actor=_actor(request, trusts=trusts),
        request_digest=request.digest,
        partition=record.partition,
        offset=record.offset,
        time_ms=record.timestamp,
        traceparent=request.traceparent,
    )


def _actor(request: Request, *, trusts: bool) -> str | None:
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


def _moment(text: str | None) -> datetime:
    return datetime.fromisoformat(text or "")


def read_position(record: Record) -> tuple[int | None, UUID]:
    """The position and the command id of a change or an outcome; no position where it was not journaled."""
    body = orjson.loads(record.value or b"")
    return body["position"], UUID(body["command_id"])
