"""The stations of a command, as `orgs trace` shows them. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import jwt
import orjson

from org_events.cloudevents import AUTHORIZATION
from org_service.domain.outcomes import NewOutcome
from org_service.domain.requests import read_broker_time
from org_service.kafka.reader import Record


class Hop(NamedTuple):
    """One station of a command."""

    name: str
    """`record`, `token`, `parked`, `rule`, `journal`, `event`, `state`, `result`."""
    said: str
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    at: datetime | None = None
    ms: float | None = None
    """Since the hop before it that has a time; clocks of several machines are compared, so it may be negative."""


class Trace(NamedTuple):
    """What became of a command."""

    command_id: UUID
    org_id: UUID | None
    status: str
    """`applied`, `unchanged`, `rejected`, `parked`, `pending`, `expired`, `unread`, `duplicate`."""
    hops: Sequence[Hop]
    notes: Sequence[str] = ()


def is_record_of(row: NewOutcome, record: Record) -> bool:
    """Whether an outcome is that of this record, rather than of another one with the same id or offset."""
    same_time = row.command_time_ms is None or row.command_time_ms == record.timestamp
    return (row.command_partition, row.command_offset) == (record.partition, record.offset) and same_time


def is_result_of(record: Record, command_id: UUID) -> bool:
    """Whether a record of `orgs.results` answers a command."""
    return dict(record.headers).get("ce_commandid") == str(command_id).encode()


def moment(time_ms: int) -> datetime:
    """From milliseconds since 1970."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def record_hop(record: Record) -> Hop:
    """The record of a command."""
    headers = dict(record.headers)
    kind, source = (_text(headers.get(name)) for name in ("ce_type", "ce_source"))
    said = f"{kind or 'no type'}{f' from {source}' if source else ''}"
    return Hop("record", said, record.topic, record.partition, record.offset, read_broker_time(record))


def token_hop(record: Record, row: NewOutcome | None) -> list[Hop]:
    """Whose command it is, by its token or its publisher. The token is only read: who decided verified it."""
    headers = {name.lower(): value for name, value in record.headers}
    raw = headers.get(AUTHORIZATION)
    if raw is None:
        actor = _text(headers.get("ce_actor"))
        return [Hop("token", f"none; the publisher names {actor}" if actor else "none, and nobody is named")]
    try:
        claims: dict[str, Any] = jwt.decode(
            _text(raw).removeprefix("Bearer ").strip(), options={"verify_signature": False}
        )
        until = moment(int(claims["exp"]) * 1000)
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError, OverflowError, OSError):
        return [Hop("token", "it can't be read")]
    left_s = (until - read_broker_time(record)).total_seconds()
    said = f"of {claims.get('sub')}, " + (f"expired {-left_s:.0f} s before" if left_s < 0 else f"{left_s:.0f} s left")
    return [Hop("token", said + ("" if row is None else "; rejected" if row.code == 401 else "; accepted"))]


def rule(row: NewOutcome) -> str:
    """What was decided, and why."""
    if row.problem is None:
        return f"{row.outcome}, for {row.actor or 'nobody'}"
    problem = orjson.loads(row.problem)
    return f"{row.outcome} {row.code}: {problem['title']}: {problem['detail']}"


def _text(raw: bytes | None) -> str:
    return "" if raw is None else raw.decode(errors="replace")


def found(name: str, said: str, record: Record) -> Hop:
    """A record that was published."""
    return Hop(name, said, record.topic, record.partition, record.offset, moment(record.timestamp))


def timed(hops: Sequence[Hop]) -> list[Hop]:
    """With the milliseconds since the former one."""
    result: list[Hop] = []
    before: datetime | None = None
    for hop in hops:
        ms = None if hop.at is None or before is None else round((hop.at - before).total_seconds() * 1000, 1)
        result.append(hop._replace(ms=ms))
        before = hop.at or before
    return result
