"""From a journal row to the records that tell the world of it. Pure; nothing here parses or escapes JSON but the actor.

A row gives a result; an applied one an event and a state record as well. The journal keeps its JSON ready to send, so
a body is one join of bytes; headers are joined in Kafka's own encoding; and what repeats from row to row (constant
headers, the time of a worker's batch, an actor, the hash of a key) is made once. That is a third of the time that
`json`, `uuid` and lists of headers take.

`orgs.state` carries no CloudEvents attributes but two: it is a table, not a stream of facts. A tombstone has version
and position too, so that a reader can tell which of two records is newer.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from org_events.cloudevents import CONTENT_TYPE, EVENT_SCHEMA, JSON_CONTENT, RESULT_SCHEMA, SOURCE, TRACEPARENT
from org_events.results import RESULT_TYPE
from org_events.topics import murmur2
from org_service.domain.wire import derived_id
from org_service.relay.batch import header, header_name, varint
from org_service.store.journal import JournalRow

KEYS_CACHED: Final = 65_536
"""Organizations whose key's hash is remembered: some 12 MB, and 2.5 microseconds saved for a row of a busy one."""
ACTORS_CACHED: Final = 4_096
TYPES_CACHED: Final = 64
TIMES_CACHED: Final = 256
"""A worker's batch has one time, and few workers' batches meet in one chunk."""

_UUID_CHARS: Final = 36
_SPECVERSION: Final = header("ce_specversion", b"1.0")
_SOURCE: Final = header("ce_source", SOURCE.encode())
_JSON: Final = header(CONTENT_TYPE, JSON_CONTENT)
_ID: Final = header_name("ce_id", _UUID_CHARS)
_SUBJECT: Final = header_name("ce_subject", _UUID_CHARS)
_COMMAND_ID: Final = header_name("ce_commandid", _UUID_CHARS)
_EVENT: Final = _SPECVERSION + _SOURCE + header("ce_dataschema", EVENT_SCHEMA.encode()) + _JSON + _ID
"""What every event begins with: the value of `ce_id` is still to come."""
_RESULT: Final = (
    _SPECVERSION
    + _SOURCE
    + header("ce_type", RESULT_TYPE.encode())
    + header("ce_dataschema", RESULT_SCHEMA.encode())
    + _JSON
    + _ID
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class Record(NamedTuple):
    """A Kafka record but for its key, topic and partition."""

    value: bytes | None
    """None: a tombstone."""
    headers: bytes
    """Encoded, their number first."""


class Records(NamedTuple):
    """Everything to publish about one row. Event and state are there exactly when the row was applied."""

    key: bytes
    key_hash: int
    """Under Kafka's default partitioner: the partition is this modulo the number of partitions."""
    timestamp_ms: int
    result: Record
    event: Record | None
    state: Record | None


class _Common(NamedTuple):
    """What more than one of a row's records has, encoded."""

    org_id: bytes
    command_id: bytes
    position: bytes
    version: bytes
    after: bytes
    time: bytes
    shared_headers: bytes
    """`ce_time`, `ce_commandid`, `ce_position`, and `ce_subject` where the organization is known."""
    traceparent: bytes
    """As a header; empty where there is none."""


def encode(row: JournalRow) -> Records:
    """Everything to publish about `row`."""
    timestamp_ms, time, time_header = _moment(row.recorded_at)
    command_id, position = str(row.command_id).encode(), b"%d" % row.position
    org_id = b"" if row.org_id is None else str(row.org_id).encode()
    shared = (time_header, _COMMAND_ID, command_id, _POSITION[len(position)], position)
    common = _Common(
        org_id,
        command_id,
        position,
        b"null" if row.version is None else b"%d" % row.version,
        b"null" if row.after is None else row.after.encode(),
        time,
        b"".join((*shared, _SUBJECT, org_id) if org_id else shared),
        b"" if row.traceparent is None else header(TRACEPARENT, row.traceparent.encode()),
    )
    key = org_id or command_id
    result = _result(row, common)
    if row.event_type is None or not org_id:
        return Records(key, key_hash(key), timestamp_ms, result, None, None)
    return Records(key, key_hash(key), timestamp_ms, result, _event(row, row.event_type, common), _state(row, common))


def _result(row: JournalRow, common: _Common) -> Record:
    """As `domain.wire` has it: a duplicate's copy, sent by the worker, has the same bytes."""
    org_id, command_id, position, version, after, _, shared_headers, traceparent = common
    body = b"".join(
        (
            b'{"command_id":"',
            command_id,
            b'","org_id":"%b","outcome":"' % org_id if org_id else b'","org_id":null,"outcome":"',
            row.outcome.encode(),
            b'","code":%d,"version":' % row.code,
            version,
            b',"organization":',
            after,
            b',"position":',
            position,
            b',"problem":',
            b"null" if row.problem is None else row.problem.encode(),
            b',"final":true}',
        )
    )
    count = 9 + (org_id != b"") + (traceparent != b"")
    result_id = derived_id(f"result:{row.position}")
    return Record(body, b"".join((varint(count), _RESULT, result_id, shared_headers, traceparent)))


def _event(row: JournalRow, event_type: str, common: _Common) -> Record:
    org_id, command_id, position, version, after, time, shared_headers, traceparent = common
    actor_json, actor = (b"null", b"") if row.actor is None else _actor(row.actor)
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
            b"null" if row.before is None else row.before.encode(),
            b',"after":',
            after,
            b',"command_id":"',
            command_id,
            b'","actor":',
            actor_json,
            b',"recorded_at":"',
            time,
            b'"}',
        )
    )
    count = 11 + (actor != b"") + (traceparent != b"")
    headers = b"".join(
        (
            varint(count),
            _EVENT,
            derived_id(str(row.position)),
            _type(event_type),
            shared_headers,
            _VERSION[len(version)],
            version,
            actor,
            traceparent,
        )
    )
    return Record(body, headers)


def _state(row: JournalRow, common: _Common) -> Record:
    version, position = common.version, common.position
    headers = b"".join((_VERSION[len(version)], version, _POSITION[len(position)], position))
    if row.after is None:
        return Record(None, b"".join((varint(2), headers)))
    return Record(common.after, b"".join((varint(3), headers, _JSON)))


_DIGITS_MAX: Final = 19
"""Of a 64-bit number."""
_POSITION: Final = [header_name("ce_position", digits) for digits in range(_DIGITS_MAX + 1)]
_VERSION: Final = [header_name("ce_orgversion", digits) for digits in range(_DIGITS_MAX + 1)]


@lru_cache(maxsize=KEYS_CACHED)
def key_hash(key: bytes) -> int:
    """What Kafka's default partitioner takes modulo the number of partitions."""
    return murmur2(key) & 0x7FFFFFFF


@lru_cache(maxsize=TIMES_CACHED)
def _moment(moment: datetime) -> tuple[int, bytes, bytes]:
    """Milliseconds since 1970 (rounded down), RFC 3339 in UTC, and that as a header."""
    text = moment.astimezone(UTC).isoformat().replace("+00:00", "Z").encode()
    return (moment - _EPOCH) // _MILLISECOND, text, header("ce_time", text)


@lru_cache(maxsize=ACTORS_CACHED)
def _actor(actor: str) -> tuple[bytes, bytes]:
    """The actor as a JSON string and as a header."""
    return orjson.dumps(actor), header("ce_actor", actor.encode())


@lru_cache(maxsize=TYPES_CACHED)
def _type(event_type: str) -> bytes:
    return header("ce_type", event_type.encode())
