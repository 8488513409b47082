"""JSON bodies as they go out, joined from parts that are JSON already. Nothing here parses or escapes.

The journal keeps `changed`, `before`, `after` and `problem` as JSON text, so a body is one `%`-join: a tenth of the
cost of building it from values. What is put in unquoted is a number or JSON; what is put in quotes is a UUID, a
timestamp or one of our own constants.
"""

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha1
from typing import Final, NamedTuple
from uuid import UUID

from org_events.cloudevents import (
    CONTENT_TYPE,
    EVENT_ID_NAMESPACE,
    JSON_CONTENT,
    RESULT_SCHEMA,
    SOURCE,
    TRACEPARENT,
)
from org_events.results import RESULT_TYPE

RESULT_BODY: Final = (
    b'{"command_id":"%b","org_id":%b,"outcome":"%b","code":%d,"version":%b,"organization":%b,"position":%b,'
    b'"problem":%b,"final":%b}'
)
"""One for the relay and for the worker's own answers: the copy that a duplicate gets is a copy, byte for byte."""
NULL: Final = b"null"
TRUE: Final = b"true"
FALSE: Final = b"false"
MOMENTS_CACHED: Final = 256
"""A worker's batch has one time, and few workers' batches meet in one chunk."""


@lru_cache(maxsize=MOMENTS_CACHED)
def format_rfc3339(moment: datetime) -> bytes:
    """As in headers and bodies: UTC, with Z."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z").encode()


Header = tuple[str, bytes]

_SPECVERSION: Final[Header] = ("ce_specversion", b"1.0")
_SOURCE: Final[Header] = ("ce_source", SOURCE.encode())
JSON_HEADER: Final[Header] = (CONTENT_TYPE, JSON_CONTENT)
_RESULT_SCHEMA: Final[Header] = ("ce_dataschema", RESULT_SCHEMA.encode())
_RESULT_TYPE: Final[Header] = ("ce_type", RESULT_TYPE.encode())

_NAMESPACE: Final = EVENT_ID_NAMESPACE.bytes
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The first digit of a UUID's fourth group, whose upper two bits are fixed (RFC 9562, section 4.1)."""


def derive_id(name: str) -> bytes:
    """UUIDv5 of `name` in the namespace of our ids, as text: equal to `uuid.uuid5`, at a third of its cost."""
    digits = sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest()
    return (
        f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"
    ).encode()


def make_shared_headers(
    command_id: bytes, subject: bytes | None, position: bytes | None, time: bytes, traceparent: str | None
) -> list[Header]:
    """The headers that the result of a command and its event have in common.

    Args:
        command_id: 36 characters.
        subject: The organization, 36 characters; None where none can be read.
        position: In the journal, in decimal digits; None where it isn't there.
        time: RFC 3339, when the outcome was recorded.
        traceparent: Of the command.
    """
    headers = [_SPECVERSION, _SOURCE, JSON_HEADER, ("ce_time", time), ("ce_commandid", command_id)]
    if position is not None:
        headers.append(("ce_position", position))
    if traceparent is not None:
        headers.append((TRACEPARENT, traceparent.encode()))
    if subject is not None:
        headers.append(("ce_subject", subject))
    return headers


def encode_result(  # noqa: PLR0917 - by position, because the relay makes thousands a second
    derived_from: str,
    command_id: bytes,
    subject: bytes | None,
    outcome: str,
    code: int,
    version: bytes,
    organization: bytes,
    position: bytes | None,
    problem: str | None,
    final: bytes,
    shared: list[Header],
) -> tuple[bytes, list[Header]]:
    """Body and headers of a result (`org_events.Result`), whoever sends it.

    Args:
        derived_from: What the `ce_id` is derived from; the same text gives the same id.
        command_id: 36 characters.
        subject: As `make_shared_headers`.
        outcome: Of the command.
        code: Of the outcome.
        version: JSON.
        organization: JSON.
        position: As `make_shared_headers`.
        problem: JSON text; None where there is none.
        final: JSON.
        shared: From `make_shared_headers`.
    """
    body = RESULT_BODY % (
        command_id,
        NULL if subject is None else b'"%b"' % subject,
        outcome.encode(),
        code,
        version,
        organization,
        NULL if position is None else position,
        NULL if problem is None else problem.encode(),
        final,
    )
    return body, [("ce_id", derive_id(derived_from)), _RESULT_TYPE, _RESULT_SCHEMA, *shared]


class ResultRecord(NamedTuple):
    """A record of `orgs.results`."""

    key: bytes
    value: bytes
    headers: list[Header]


def make_result_record(
    *,
    derived_from: str,
    command_id: UUID,
    org_id: UUID | None,
    outcome: str,
    code: int,
    version: int | None,
    organization: str | None,
    position: int | None,
    problem: str | None,
    recorded_at: datetime,
    traceparent: str | None,
    final: bool = True,
) -> ResultRecord:
    """A result as the worker itself sends it: for a duplicate the relay's again, byte for byte.

    Args:
        derived_from: As `encode_result`.
        command_id: Of the command.
        org_id: None where none can be read: then the key is the command's id.
        outcome: Of the command.
        code: Of the outcome.
        version: After the command.
        organization: JSON text, after the command.
        position: In the journal; None where it isn't there.
        problem: JSON text.
        recorded_at: When the outcome was recorded.
        traceparent: Of the command.
        final: Whether no other outcome follows.
    """
    command = str(command_id).encode()
    subject = None if org_id is None else str(org_id).encode()
    place = None if position is None else b"%d" % position
    value, headers = encode_result(
        derived_from,
        command,
        subject,
        outcome,
        code,
        NULL if version is None else b"%d" % version,
        NULL if organization is None else organization.encode(),
        place,
        problem,
        TRUE if final else FALSE,
        make_shared_headers(command, subject, place, format_rfc3339(recorded_at), traceparent),
    )
    return ResultRecord(subject or command, value, headers)
