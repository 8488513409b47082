"""From a journal row to the records that tell the world of it. Pure; nothing here parses or escapes JSON but the actor.

A row gives a result; an applied one an event and a state record as well. The journal keeps its JSON ready to send, so
a body is one join of bytes, and what repeats from row to row (constant headers, the time of a batch, an actor, the
hash of a key) is made once. That is some 9 microseconds a row, against 30 and more with `json`, `uuid` and f-strings.

`orgs.state` carries no CloudEvents attributes: it is a table, not a stream of facts. Its headers are the version and
the position (`STATE_HEADERS`), which a tombstone has too, so that a reader can tell which of two records is newer.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from org_events.cloudevents import (
    CONTENT_TYPE,
    EVENT_SCHEMA,
    JSON_CONTENT,
    RESULT_SCHEMA,
    SOURCE,
    TRACEPARENT,
)
from org_events.results import RESULT_TYPE
from org_events.topics import murmur2
from org_service.domain.wire import derived_id
from org_service.store.journal import JournalRow

STATE_HEADERS: Final = ("ce_orgversion", "ce_position", CONTENT_TYPE)
"""The headers of a state record; a tombstone has no content, so no content type."""

KEYS_CACHED: Final = 65_536
"""Organizations whose key hash is remembered: some 12 MB, and 2.5 microseconds saved for each row of a busy one."""
ACTORS_CACHED: Final = 4_096
TIMES_CACHED: Final = 256
"""A worker's batch has one time, and few workers' batches meet in one chunk."""

_SPECVERSION: Final = ("ce_specversion", b"1.0")
_SOURCE: Final = ("ce_source", SOURCE.encode())
_JSON: Final = (CONTENT_TYPE, JSON_CONTENT)
_EVENT_SCHEMA: Final = ("ce_dataschema", EVENT_SCHEMA.encode())
_RESULT_SCHEMA: Final = ("ce_dataschema", RESULT_SCHEMA.encode())
_RESULT_TYPE: Final = ("ce_type", RESULT_TYPE.encode())
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Record(NamedTuple):
    """A Kafka record but for its key, topic and partition. No value: a tombstone."""

    value: bytes | None
    headers: list[tuple[str, bytes | None]]


class Records(NamedTuple):
    """Everything to publish about one row. Event and state are there exactly when the row was applied."""

    key: bytes
    key_hash: int
    """Under Kafka's default partitioner: the partition is this modulo the number of partitions."""
    timestamp_ms: int
    result: Record
    event: Record | None
    state: Record | None


@lru_cache(maxsize=TIMES_CACHED)
def _time(moment: datetime) -> tuple[int, bytes]:
    """Milliseconds since 1970 (rounded down), and RFC 3339 in UTC."""
    return (moment - _EPOCH) // _MILLISECOND, moment.astimezone(UTC).isoformat().replace("+00:00", "Z").encode()


@lru_cache(maxsize=ACTORS_CACHED)
def _actor(actor: str) -> tuple[bytes, bytes]:
    """The actor as a header's value and as a JSON string."""
    return actor.encode(), orjson.dumps(actor)


@lru_cache(maxsize=KEYS_CACHED)
def key_hash(key: bytes) -> int:
    """What Kafka's default partitioner takes modulo the number of partitions."""
    return murmur2(key) & 0x7FFFFFFF


def _or_null(number: int | None) -> bytes:
    return b"null" if number is None else b"%d" % number


def _text(text: str | None) -> bytes:
    return b"null" if text is None else text.encode()


def encode(row: JournalRow) -> Records:
    """Everything to publish about `row`."""
    position, command_id = b"%d" % row.position, str(row.command_id).encode()
    org_id = None if row.org_id is None else str(row.org_id).encode()
    key = org_id or command_id
    timestamp_ms, time = _time(row.recorded_at)
    after = None if row.after is None else row.after.encode()
    traceparent = None if row.traceparent is None else row.traceparent.encode()
    version = _or_null(row.version)

    body = b"".join(
        (
            b'{"command_id":"',
            command_id,
            b'","org_id":null,"outcome":"' if org_id is None else b'","org_id":"%b","outcome":"' % org_id,
            row.outcome.encode(),
            b'","code":%d,"version":' % row.code,
            version,
            b',"organization":',
            b"null" if after is None else after,
            b',"position":',
            position,
            b',"problem":',
            _text(row.problem),
            b',"final":true}',
        )
    )
    headers: list[tuple[str, bytes | None]] = [
        _SPECVERSION,
        ("ce_id", derived_id(f"result:{row.position}")),
        _RESULT_TYPE,
        _SOURCE,
        ("ce_time", time),
        _RESULT_SCHEMA,
        _JSON,
        ("ce_commandid", command_id),
        ("ce_position", position),
    ]
    if org_id is not None:
        headers.append(("ce_subject", org_id))
    if traceparent is not None:
        headers.append((TRACEPARENT, traceparent))
    result = Record(body, headers)
    if row.event_type is None or org_id is None:
        return Records(key, key_hash(key), timestamp_ms, result, None, None)

    orgversion, at = ("ce_orgversion", version), ("ce_position", position)
    state = Record(after, [orgversion, at] if after is None else [orgversion, at, _JSON])
    event = _event(
        row,
        org_id=org_id,
        command_id=command_id,
        position=position,
        version=version,
        time=time,
        after=after,
        traceparent=traceparent,
    )
    return Records(key, key_hash(key), timestamp_ms, result, event, state)


def _event(
    row: JournalRow,
    *,
    org_id: bytes,
    command_id: bytes,
    position: bytes,
    version: bytes,
    time: bytes,
    after: bytes | None,
    traceparent: bytes | None,
) -> Record:
    actor, actor_json = (None, b"null") if row.actor is None else _actor(row.actor)
    body = b"".join(
        (
            b'{"org_id":"',
            org_id,
            b'","version":',
            version,
            b',"position":',
            position,
            b',"changed":',
            b"[]" if row.changed is None else row.changed.encode(),
            b',"before":',
            _text(row.before),
            b',"after":',
            b"null" if after is None else after,
            b',"command_id":"',
            command_id,
            b'","actor":',
            actor_json,
            b',"recorded_at":"',
            time,
            b'"}',
        )
    )
    headers: list[tuple[str, bytes | None]] = [
        _SPECVERSION,
        ("ce_id", derived_id(str(row.position))),
        ("ce_type", (row.event_type or "").encode()),
        _SOURCE,
        ("ce_subject", org_id),
        ("ce_time", time),
        _EVENT_SCHEMA,
        _JSON,
        ("ce_orgversion", version),
        ("ce_position", position),
        ("ce_commandid", command_id),
    ]
    if actor is not None:
        headers.append(("ce_actor", actor))
    if traceparent is not None:
        headers.append((TRACEPARENT, traceparent))
    return Record(body, headers)
