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
from org_service.relay.batch import header, header_up_to_value, sized, varint
from org_service.store.journal import JournalRow

KEYS_CACHED: Final = 65_536
"""Organizations whose key's hash is remembered: some 12 MB, and 2.5 microseconds saved for a row of a busy one."""
ACTORS_CACHED: Final = 4_096
TYPES_CACHED: Final = 64
TIMES_CACHED: Final = 256
"""A worker's batch has one time, and few workers' batches meet in one chunk."""

_UUID_CHARS: Final = 36
_DIGITS_MAX: Final = 19
"""Of a 64-bit number."""
_SPECVERSION: Final = header("ce_specversion", b"1.0")
_SOURCE: Final = header("ce_source", SOURCE.encode())
_JSON: Final = header(CONTENT_TYPE, JSON_CONTENT)
_EVENT_SCHEMA: Final = header("ce_dataschema", EVENT_SCHEMA.encode())
_RESULT_SCHEMA: Final = header("ce_dataschema", RESULT_SCHEMA.encode())
_RESULT_TYPE: Final = header("ce_type", RESULT_TYPE.encode())
_ID: Final = header_up_to_value("ce_id", _UUID_CHARS)
_SUBJECT: Final = header_up_to_value("ce_subject", _UUID_CHARS)
_COMMAND_ID: Final = header_up_to_value("ce_commandid", _UUID_CHARS)
_POSITION: Final = [header_up_to_value("ce_position", digits) for digits in range(_DIGITS_MAX + 1)]
_VERSION: Final = [header_up_to_value("ce_orgversion", digits) for digits in range(_DIGITS_MAX + 1)]
_EVENT: Final = _SPECVERSION + _SOURCE + _EVENT_SCHEMA + _JSON + _ID
"""What every event begins with: the value of `ce_id` is still to come."""
_RESULT: Final = _SPECVERSION + _SOURCE + _RESULT_TYPE + _RESULT_SCHEMA + _JSON + _ID
_EVENT_HEADERS, _RESULT_HEADERS, _STATE_HEADERS, _TOMBSTONE_HEADERS = 11, 9, 3, 2
"""Their number, without the optional ones."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

Record = tuple[bytes | None, bytes]
"""Value (None: a tombstone) and headers (encoded, their number first)."""


class Records(NamedTuple):
    """Everything to publish about one row. Event and state are there exactly when the row was applied."""

    sized_key: bytes
    """With its length before it."""
    key_hash: int
    """Under Kafka's default partitioner: the partition is this modulo the number of partitions."""
    timestamp_ms: int
    result: Record
    event: Record | None
    state: Record | None


def encode(row: JournalRow) -> Records:
    """Everything to publish about `row`."""
    timestamp_ms, time, time_header = _moment(row.recorded_at)
    command_id, position = str(row.command_id).encode(), b"%d" % row.position
    position_header = _POSITION[len(position)] + position
    version = b"null" if row.version is None else b"%d" % row.version
    after = b"null" if row.after is None else row.after.encode()
    traceparent = b"" if row.traceparent is None else header(TRACEPARENT, row.traceparent.encode())
    if row.org_id is None:
        sized_key, key_hash = _key(command_id)
        org_id_json, shared = b"null", b"".join((time_header, _COMMAND_ID, command_id, position_header, traceparent))
    else:
        org_id = str(row.org_id).encode()
        sized_key, key_hash = _key(org_id)
        org_id_json = b'"%b"' % org_id
        shared = b"".join((time_header, _COMMAND_ID, command_id, position_header, _SUBJECT, org_id, traceparent))
    extra = (row.org_id is not None) + (row.traceparent is not None)
    result = (
        _result_body(row, command_id, org_id_json, version, after),
        b"".join((varint(_RESULT_HEADERS + extra), _RESULT, derived_id(f"result:{row.position}"), shared)),
    )
    if row.event_type is None:
        return Records(sized_key, key_hash, timestamp_ms, result, None, None)

    actor_json, actor_header = (b"null", b"") if row.actor is None else _actor(row.actor)
    version_header = _VERSION[len(version)] + version
    extra += row.actor is not None
    event = (
        b"".join(
            (
                *(b'{"org_id":', org_id_json, b',"version":', version, b',"position":', position),
                *(b',"changed":', b"[]" if row.changed is None else row.changed.encode()),
                *(b',"before":', b"null" if row.before is None else row.before.encode()),
                *(b',"after":', after, b',"command_id":"', command_id, b'","actor":', actor_json),
                *(b',"recorded_at":"', time, b'"}'),
            )
        ),
        b"".join(
            (
                *(varint(_EVENT_HEADERS - 1 + extra), _EVENT, derived_id(str(row.position)), _type(row.event_type)),
                *(version_header, actor_header, shared),
            )
        ),
    )
    if row.after is None:
        state = None, b"".join((varint(_TOMBSTONE_HEADERS), version_header, position_header))
    else:
        state = after, b"".join((varint(_STATE_HEADERS), version_header, position_header, _JSON))
    return Records(sized_key, key_hash, timestamp_ms, result, event, state)


def _result_body(row: JournalRow, command_id: bytes, org_id_json: bytes, version: bytes, after: bytes) -> bytes:
    """The same bytes as `domain.wire.result_body`, so that a duplicate's copy, sent by the worker, is a copy."""
    return b"".join(
        (
            *(b'{"command_id":"', command_id, b'","org_id":', org_id_json, b',"outcome":"', row.outcome.encode()),
            *(b'","code":%d,"version":' % row.code, version, b',"organization":', after),
            *(b',"position":%d,"problem":' % row.position, b"null" if row.problem is None else row.problem.encode()),
            b',"final":true}',
        )
    )


@lru_cache(maxsize=KEYS_CACHED)
def _key(key: bytes) -> tuple[bytes, int]:
    """A key with its length, and what Kafka's default partitioner takes modulo the number of partitions."""
    return sized(key), murmur2(key) & 0x7FFFFFFF


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
