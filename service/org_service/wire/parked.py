"""What is kept of a record that is set aside: bounded in every part, and never a token; and reading that again."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, cast

import orjson

from org_events.cloudevents import AUTHORIZATION, CONTENT_TYPE, STRUCTURED_BYTES_MAX, TRACEPARENT, is_structured
from org_events.kafka.batches import BATCH_HEADER_BYTES, UnreadBatch
from org_service.domain.outcomes import KeptRecord, StoredRecord
from org_service.domain.reasons import AuthenticatedBy
from org_service.domain.requests import LOG_APPEND_TIME, Record, Rejected, Request, SetAside, read_broker_time

HEADERS_BYTES_MAX: Final = 64 * 1024
"""Of a record that is set aside; as much as a command. Nothing else bounds it below what Postgres takes in one row."""
HEADERS_KEPT_MAX: Final = 1_000
"""Of a record, its first ones; to weigh all of the 10,000 that it may have takes 20 ms."""
VALUE_BYTES_KEPT: Final = 64 * 1024
"""Of a value that is too long to be read as a command, of which nobody needs more than a look."""
KEY_BYTES_KEPT: Final = 1_024
_TOKEN_LEFT_OUT: Final = "its token was not verified, and is not"  # noqa: S105 - a sentence
"""In the detail of a record whose token nobody had verified when it was set aside."""
_TYPE_CHARS_MAX: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HEADER_BYTES: Final = 8
"""That a header costs beside its name and value."""


def keep_headers(record: Record) -> tuple[str, str]:
    """What is kept of a record's headers that is set aside, and what to say of the rest.

    No token is kept: whoever can read it could use it.

    Returns:
        JSON text, [name, Base64 of the value or null] in order; and a note, empty where all are kept. Of more than
        `HEADERS_BYTES_MAX` those of a command are kept first, then the small ones; none behind `HEADERS_KEPT_MAX`.
    """
    cut = len(record.headers) - HEADERS_KEPT_MAX
    about_cut = f"its last {cut} headers are not stored" if cut > 0 else ""
    headers = [(name, content) for name, content in record.headers[:HEADERS_KEPT_MAX] if not _is_token(name)]
    sizes = [len(name) + len(content or b"") + _HEADER_BYTES for name, content in headers]
    kept = set(range(len(headers)))
    note = ""
    if sum(sizes) > HEADERS_BYTES_MAX:
        kept, room = set[int](), HEADERS_BYTES_MAX
        for number in sorted(range(len(headers)), key=lambda each: (not _is_ours(headers[each][0]), sizes[each])):
            if sizes[number] <= room:
                kept.add(number)
                room -= sizes[number]
        left = [len(content or b"") for number, (_, content) in enumerate(headers) if number not in kept]
        note = f"{len(left)} of its {len(headers)} headers, {sum(left)} bytes, were too large to store"
    pairs = [[name, _as_text(content)] for number, (name, content) in enumerate(headers) if number in kept]
    return orjson.dumps(pairs).decode(), "; ".join(filter(None, (note, about_cut)))


def _as_text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _is_ours(name: str) -> bool:
    return name.startswith("ce_") or name.lower() in {CONTENT_TYPE, TRACEPARENT}


def holds_token(record: Record) -> bool:
    """Whether there is a header that is, or seems to be, a token."""
    return any(_is_token(name) for name, _ in record.headers)


def _is_token(name: str) -> bool:
    """Also of `ce_authorization`, `proxy-authorization` and whatever else is named like it."""
    return AUTHORIZATION in name.lower()


def keep_key(record: Record) -> tuple[bytes | None, str]:
    """What is kept of a record's key that is set aside, and what to say of the rest; an organization's has 36 bytes."""
    key = record.key
    if key is None or len(key) <= KEY_BYTES_KEPT:
        return key, ""
    return key[:KEY_BYTES_KEPT], f"its key has {len(key)} bytes, SHA-256 {sha256(key).hexdigest()}"


class KeptValue(NamedTuple):
    """What is kept of a record's value that is set aside."""

    value: bytes | None
    length: int | None
    """In bytes, of a value of which only the beginning is kept; None where all of it is."""
    digest: str | None
    """SHA-256 of the same, in hex."""


def keep_value(record: Record) -> KeptValue:
    """Keep a value that can be read as a command whole: an operator may let it go. Of others the beginning will do.

    Of a batch that was not read only its header is kept: there may be tokens among its records.
    """
    value = record.value
    if isinstance(value, UnreadBatch):
        return KeptValue(value[:BATCH_HEADER_BYTES], len(value), sha256(value).hexdigest())
    if value is None or len(value) <= STRUCTURED_BYTES_MAX:
        return KeptValue(value, None, None)
    return KeptValue(value[:VALUE_BYTES_KEPT], len(value), sha256(value).hexdigest())


def explain_unread(record: Record) -> str:
    """Why a whole batch stands in the place of a value; empty where none does."""
    return record.value.why if isinstance(record.value, UnreadBatch) else ""


def keep_record(set_aside: SetAside) -> KeptRecord:
    """What is kept of a record for an operator: bytes, coordinates, and who was verified in place of a token."""
    (record, detail, reason, _), request = set_aside
    key, about_key = keep_key(record)
    headers, about_headers = keep_headers(record)
    verified = request is not None and request.user_id is not None
    about_token = "" if verified or not holds_token(record) else f"{_TOKEN_LEFT_OUT} stored"
    value, value_bytes, value_sha256 = keep_value(record)
    return KeptRecord(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        broker_time=read_broker_time(record),
        key=key,
        value=value,
        headers=headers,
        org_id=None if request is None else request.org_id,
        command_id=None if request is None else request.command_id,
        request_digest=None if request is None else request.digest,
        reason=reason,
        detail="; ".join(filter(None, (detail, explain_unread(record), about_key, about_headers, about_token))),
        actor=None if request is None else request.actor,
        authenticated_by=_authenticated_by(request),
        value_bytes=value_bytes,
        value_sha256=value_sha256,
    )


def _authenticated_by(request: Request | None) -> AuthenticatedBy | None:
    """Who vouches for the actor of a request; None where nobody does."""
    if request is None:
        return None
    if request.user_id is not None:
        return AuthenticatedBy.TOKEN
    return None if isinstance(request.command, Rejected) else AuthenticatedBy.PUBLISHER


class RecordAgain(NamedTuple):
    """A record that was set aside, as the reader of commands wants one; of its headers no token is left."""

    id: int
    """Of the parked record."""
    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def record_again(stored: StoredRecord) -> RecordAgain:
    """The record that was set aside, with the same coordinates and time."""
    return RecordAgain(
        stored.id,
        stored.topic,
        stored.partition,
        stored.offset,
        (stored.broker_time - _EPOCH) // timedelta(milliseconds=1),
        LOG_APPEND_TIME,
        stored.key,
        stored.value,
        [
            (name, None if content is None else base64.b64decode(content))
            for name, content in orjson.loads(stored.headers)
        ],
    )


def lacks_token(stored: StoredRecord) -> bool:
    """Whether there was a token, which nobody had verified."""
    return _TOKEN_LEFT_OUT in stored.detail


def read_type(stored: StoredRecord) -> str:
    """The type of a command, as far as it can be read; empty where it can't."""
    headers = dict(record_again(stored).headers)
    named = headers.get("ce_type")
    if named is None and is_structured(headers.get(CONTENT_TYPE)):
        try:
            event = orjson.loads(stored.value or b"")
        except orjson.JSONDecodeError:
            event = None
        found = cast("dict[str, Any]", event).get("type") if isinstance(event, dict) else None
        named = found.encode(errors="replace") if isinstance(found, str) else None
    return (named or b"").decode(errors="replace")[:_TYPE_CHARS_MAX]
