"""From a record of a reference topic to a fact, or to what is wrong with it. No I/O, and never an exception for data.

A key names a fact in one spelling only, because topics are compacted by it; the headers of a record mean nothing here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from org_events.commands import PAYLOAD_BYTES_MAX
from org_events.reference import USER_ID_CHARS_MAX, Membership, Partnership, Reference, Staff, UserId, read_key
from org_events.topics import Topics, partitions_for
from org_service.domain.reasons import ParkReason
from org_service.domain.requests import Record, Unreadable
from org_service.wire.ids import read_uuid

FACT_KEY_BYTES_MAX: Final = USER_ID_CHARS_MAX + len(":") + 36
"""The longest key is a membership's; a longer one names no fact."""


class Fact(NamedTuple):
    """One readable record."""

    record: Record
    kind: type[Reference]
    key: tuple[Any, ...]
    row: tuple[Any, ...] | None
    """The values of its fields, the key's first; None for a tombstone: the fact is taken back."""


def map_kinds(topics: Topics) -> Mapping[str, type[Reference]]:
    """What each reference topic holds, by its name."""
    return {topics.memberships: Membership, topics.partnerships: Partnership, topics.staff: Staff}


def read_fact(kind: type[Reference], record: Record) -> Fact | Unreadable:
    """Read one record."""
    value = record.value
    if value is None:
        return _read_tombstone(kind, record)
    if len(value) > PAYLOAD_BYTES_MAX:
        return Unreadable(record, f"the value has {len(value)} bytes; at most {PAYLOAD_BYTES_MAX} are accepted")
    try:
        # Strict is JSON's own types: no number for a time, no text for a truth value.
        fact = kind.model_validate_json(value, strict=True)
    except ValidationError as error:
        return Unreadable(record, _what_is_wrong(error))
    if fact.key() != record.key:
        return Unreadable(record, f"the key is not {':'.join(kind.KEY_FIELDS)} of the value")
    row = tuple(getattr(fact, field) for field in kind.model_fields)  # iterating over the model costs 1.6 times as much
    return Fact(record, kind, row[: len(kind.KEY_FIELDS)], row)


def set_strays_aside(read: Sequence[Fact | Unreadable], partitions: int) -> list[Fact | Unreadable]:
    """The same, without facts that stand on another partition than their keys belong on.

    Between two partitions there is no order, so which of two such records counts would depend on who reads first.
    """
    keys = [each.record.key or b"" for each in read if isinstance(each, Fact)]
    homes = iter(partitions_for(keys, partitions))
    return [each if isinstance(each, Unreadable) else _at_home(each, next(homes)) for each in read]


def _at_home(fact: Fact, home: int) -> Fact | Unreadable:
    if fact.record.partition == home:
        return fact
    detail = (
        f"the key belongs on partition {home} by murmur2, Kafka's default partitioner, so its order relative to "
        "other records of that key is not known"
    )
    return Unreadable(fact.record, detail, ParkReason.WRONG_PARTITION)


_USER_ID: Final[TypeAdapter[str]] = TypeAdapter(UserId)


def _read_tombstone(kind: type[Reference], record: Record) -> Fact | Unreadable:
    try:
        named = read_key(kind, record.key)
        key = tuple(
            _read_user(text) if field == "user_id" else _read_uuid(field, text) for field, text in named.items()
        )
    except ValidationError as error:
        return Unreadable(record, f"a tombstone's key: user_id: {_what_is_wrong(error)}")
    except ValueError as error:
        return Unreadable(record, f"a tombstone's key: {error}")
    return Fact(record, kind, key, None)


def _read_user(text: str) -> str:
    return _USER_ID.validate_python(text)


def _read_uuid(field: str, text: str) -> UUID:
    found = read_uuid(text.encode())
    if found is None or str(found) != text:
        raise ValueError(f"{field} is not a UUID of 36 lower-case characters")
    return found


def _what_is_wrong(error: ValidationError) -> str:
    """Each wrong field and why, without a byte of the payload."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['type']}".removeprefix(": ") for each in errors)
