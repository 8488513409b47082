"""What a row of the journal means for the table and the topics: what is compared, and what a repair writes. Pure."""

from collections.abc import Iterator
from hashlib import md5
from typing import Any, Literal, cast

import orjson

from org_service.domain.organization import StoredOrganization, as_deleted, from_published
from org_service.domain.outcomes import JournaledOutcome
from org_service.operate.verifying.logs import Log
from org_service.wire.changes import encode


def digest_of(row: JournaledOutcome, log: Log) -> bytes | None:
    """Of the record that the relay makes of a row; None where it makes none."""
    records = encode(row)
    if log == "results":
        return md5(records.result[0] or b"").digest()  # noqa: S324 - see `store.verification`
    if records.event is None:
        return None
    return md5((row.event_type or "").encode() + (records.event[0] or b"")).digest()  # noqa: S324 - as above


def body_of(row: JournaledOutcome, log: Literal["events", "results", "state"]) -> bytes | None:
    """The record's value."""
    records = encode(row)
    record = {"events": records.event, "results": records.result, "state": records.state}[log]
    return None if record is None else record[0]


def restore(row: JournaledOutcome) -> StoredOrganization | None:
    """The organization as the last change left it, as the table must have it; None where it was erased."""
    if row.after is None and row.before is None:
        return None
    found = from_published(orjson.loads(row.after or row.before or ""))._replace(version=row.version or 0)
    if row.org_id is not None:
        found = found._replace(id=row.org_id)
    return found if row.after is not None else as_deleted(found, found.version, row.recorded_at)


def differing_fields(expected: StoredOrganization, found: StoredOrganization) -> Iterator[tuple[str, Any, Any]]:
    """Fields that differ: name, as it must be, as it is."""
    for name, must_be, is_now in zip(StoredOrganization._fields, expected, found, strict=True):
        if must_be != is_now:
            yield name, must_be, is_now


def differing_members(expected: bytes | None, found: bytes | None) -> Iterator[tuple[str, Any, Any]]:
    """Members of two bodies that differ; the whole where one isn't a JSON object."""
    must_be, is_now = _members(expected), _members(found)
    if must_be is None or is_now is None:
        yield "", _text(expected), _text(found)
        return
    same = True
    for name in sorted({*must_be, *is_now}):
        if must_be.get(name) != is_now.get(name):
            same = False
            yield name, must_be.get(name), is_now.get(name)
    if same:
        yield "", _text(expected), _text(found)


def _members(value: bytes | None) -> dict[str, Any] | None:
    try:
        said = orjson.loads(value or b"null")
    except orjson.JSONDecodeError:
        return None
    return cast("dict[str, Any]", said) if isinstance(said, dict) else None


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")
