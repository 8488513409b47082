"""From a Kafka record to a command, or to what is wrong with it. No I/O, and never an exception.

A record whose command id can't be read is `Unreadable`: nobody could be answered, so it is parked. Everything else
gets an outcome: a `Rejected` is journaled as a 400, an `Invalid` body is left to `decide`, where 404 comes first.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import orjson
from pydantic import ValidationError

from org_events.cloudevents import (
    AUTHORIZATION,
    CONTENT_TYPE,
    JSON_CONTENT,
    TRACEPARENT,
    TRACEPARENT_ATTRIBUTE,
    NotACloudEvent,
    describe_contradiction,
    index_headers,
    is_structured,
    read_structured,
)
from org_events.commands import (
    COMMANDS,
    PAYLOAD_BYTES_MAX,
    PAYLOAD_DEPTH_MAX,
    RESERVED_IDS,
    Command,
    CreateOrganization,
    IfCurrent,
)
from org_events.results import FieldError
from org_service.domain.decide import Invalid
from org_service.domain.requests import Record, Rejected, Request, Unreadable
from org_service.wire.body import digest_request, measure_depth, write_version_plainly
from org_service.wire.ids import is_uuid, make_uuid, read_traceparent, read_uuid

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ACTOR_CHARS_MAX: Final = 200
_TYPE_CHARS_SHOWN: Final = 100
"""Of a type nobody knows, which may hold anything."""
_RESERVED: Final = frozenset(form for each in RESERVED_IDS for form in (str(each).encode(), str(each).upper().encode()))
_BOM: Final = b"\xef\xbb\xbf"
_FROM_ENVELOPE: Final = ("actor", "authorization", "traceparent")
"""Extensions of a structured event that are read, or must not be there."""
_TOKEN_ATTRIBUTE: Final = "ce_authorization"  # noqa: S105 - a name
"""An attribute is not where a token is looked for, and one that is overlooked must not be believed to be none."""


def read(record: Record, *, validate: bool = True) -> Request | Unreadable:
    """Read one record of `orgs.commands`, binary or structured CloudEvent.

    Args:
        record: It.
        validate: Look at the fields of its body, which takes half the time. Else a body that could be validated comes
            as `Invalid`, without errors: for who asks which command it is, and not what for.
    """
    headers, twice = index_headers(record.headers)
    value = record.value
    content_type = headers.get(CONTENT_TYPE)
    if content_type != JSON_CONTENT and is_structured(content_type):
        try:
            event = read_structured(value)
        except NotACloudEvent as error:
            return _broken_envelope(record, value or b"", error)
        # The event is all in the value: headers that repeat its attributes don't count.
        headers = {name: headers[name] for name in (AUTHORIZATION, TRACEPARENT) if name in headers}
        twice = [name for name in twice if not name.startswith("ce_")]
        headers["ce_id"], headers["ce_type"] = _bytes(event.id), _bytes(event.type)
        for name in _FROM_ENVELOPE:
            if name in event.attributes:
                headers[f"ce_{name}"] = _bytes(event.attributes[name])
        value = event.data
    elif "ce_id" in twice:
        return Unreadable(record, describe_contradiction("ce_id"))
    raw_id = headers.get("ce_id")
    if raw_id is None:
        return Unreadable(record, "the header ce_id is missing")
    command_id = read_uuid(raw_id)
    if command_id is None:
        return Unreadable(record, "the header ce_id is not a UUID of 36 characters")
    problem = _sentence(describe_contradiction(twice[0])) if twice else None
    if _TOKEN_ATTRIBUTE in headers:
        problem = "Send the token in the record's header authorization, not among the event's attributes."
    if raw_id in _RESERVED:
        problem = "The header ce_id must not be the nil or max UUID."
    return _read_body(record, command_id, headers, value or b"", problem, validate=validate)


def _broken_envelope(record: Record, value: bytes, error: NotACloudEvent) -> Request | Unreadable:
    command_id = read_uuid(_bytes(error.event_id or ""))
    if command_id is None:
        return Unreadable(record, str(error))
    rejected = Rejected("", f"The record is not a CloudEvent: {error}.")
    return Request(record, command_id, read_uuid(record.key), rejected, digest_request(b"", value), None, None)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _read_body(
    record: Record,
    command_id: UUID,
    headers: dict[str, bytes | None],
    value: bytes,
    contradictory: str | None,
    *,
    validate: bool,
) -> Request:
    raw_type = headers.get("ce_type") or b""
    command_type = raw_type.decode(errors="replace")
    model = COMMANDS.get(command_type)
    raw_actor = headers.get("ce_actor")
    actor, actor_problem = (None, None) if raw_actor is None else _actor(raw_actor)
    raw_trace = headers.get(TRACEPARENT) or headers.get(TRACEPARENT_ATTRIBUTE)
    traceparent = read_traceparent(raw_trace.decode("latin-1")) if raw_trace else None
    body, canonical, problem = _parse(value)
    problem = contradictory or problem or _shape_problem(record.key, body, raw_type, model) or actor_problem
    command: Command | Invalid | Rejected
    if problem is None:
        assert model is not None
        assert record.key is not None
        org_text = record.key.decode("ascii")
        if write_version_plainly(body) or body["org_id"] != org_text:  # in upper case it is the same command
            body["org_id"] = org_text
            canonical = _canonical(body)
        body["org_id"] = org_id = make_uuid(org_text)
        command = _validate(model, body, value) if validate else Invalid(model.type, [])
    else:
        command = Rejected(command_type if model else ascii(command_type)[1:-1][:_TYPE_CHARS_SHOWN], problem)
        org_id = read_uuid(record.key) or read_uuid(_bytes(_org_id(body)))
    digest = digest_request(raw_type, canonical)
    authorization = (headers[AUTHORIZATION] or b"") if AUTHORIZATION in headers else None
    return Request(record, command_id, org_id, command, digest, actor, traceparent, authorization)


def _parse(value: bytes) -> tuple[Any, bytes, str | None]:
    """The body, its canonical bytes (as sent where it can't be parsed), and what is wrong with it."""
    if len(value) > PAYLOAD_BYTES_MAX:
        return None, value, f"The body has {len(value)} bytes; at most {PAYLOAD_BYTES_MAX} are accepted."
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if value.startswith(_BOM) and not value.startswith(_BOM * 2):
            return _parse(value[len(_BOM) :])  # it means nothing (RFC 8259, section 8.1); looked for where it hurts
        return None, value, f"The body is not JSON: {error.msg} at character {error.pos}."
    # No more brackets than the depth allows is the rule; only otherwise is it worth a walk.
    if value.count(b"{") + value.count(b"[") > PAYLOAD_DEPTH_MAX and measure_depth(body) > PAYLOAD_DEPTH_MAX:
        return body, value, f"The body is nested more than {PAYLOAD_DEPTH_MAX} levels deep."
    return body, _canonical(body), None


def _canonical(body: Any) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def _org_id(body: Any) -> str:
    """The body's `org_id` where it has one, else nothing."""
    org_id = cast("dict[str, Any]", body).get("org_id") if isinstance(body, dict) else None
    return org_id if isinstance(org_id, str) else ""


def _actor(raw: bytes) -> tuple[str | None, str | None]:
    """Who, and what is wrong with it."""
    try:
        actor = raw.decode()
    except UnicodeDecodeError:
        return None, "The header ce_actor is not UTF-8."
    if len(actor) > ACTOR_CHARS_MAX or not actor.isprintable():
        return None, f"The header ce_actor must have at most {ACTOR_CHARS_MAX} printable characters."
    return actor, None


def _shape_problem(key: bytes | None, body: Any, raw_type: bytes, model: type[Command] | None) -> str | None:
    """What keeps parsed JSON from being a command at all."""
    if model is None:
        known = ", ".join(COMMANDS)
        return "The header ce_type is missing." if not raw_type else f"Unknown ce_type; the types are {known}."
    if not isinstance(body, dict):
        return "The body must be a JSON object."
    org_id = _bytes(_org_id(body))
    if not is_uuid(org_id):
        return "org_id must be a UUID of 36 characters."
    if key != org_id.lower():
        return "The record's key must be org_id, as 36 lower-case characters of UTF-8."
    if key in _RESERVED and model is CreateOrganization:
        return "org_id must not be the nil or max UUID."
    return None


def _validate(model: type[Command], body: Any, value: bytes) -> Command | Invalid:
    errors = _misspelt(body["if_current"]) if "if_current" in body and "if_current" in model.model_fields else []
    try:
        command = model.model_validate(body, extra="ignore")
    except ValidationError as error:
        errors = _field_errors(error) + errors
    else:
        if not errors:
            return _without_nul(command, body, value)
    return Invalid(model.type, errors)


def _field_errors(error: ValidationError, below: str = "") -> list[FieldError]:
    return [
        FieldError(path=below + ".".join(map(str, e["loc"])), code=e["type"], message=_message(e))
        for e in error.errors(include_url=False, include_context=False)
    ]


def _misspelt(if_current: object) -> list[FieldError]:
    """The members of a precondition that nobody knows.

    Everywhere else these are ignored; of a precondition, the command would go through where it must not.
    """
    try:
        IfCurrent.model_validate(if_current)
    except ValidationError as error:
        return [each for each in _field_errors(error, "if_current.") if each.code == "extra_forbidden"]
    return []


def _without_nul(command: Command, body: Any, value: bytes) -> Command | Invalid:
    if b"\\u0000" in value:
        way = _way_to_nul(body)
        if way is not None:
            path = ".".join(map(str, reversed(way)))
            return Invalid(command.type, [FieldError(path=path, code="nul", message="Remove the NUL character")])
    return command


def _message(error: "ErrorDetails") -> str:
    if error["type"] != "model_type":
        return error["msg"]
    # Agents, and whoever encodes a part by itself, send the JSON of an object where the object should be.
    return "Must be an object" + (", not a string with its JSON" if isinstance(error["input"], str) else "")


def _way_to_nul(node: Any) -> list[str | int] | None:
    """The way to a NUL character in a body of bounded depth, last step first, also in what nobody reads; None where
    there is none. No path is made before one is found: a long name in front of many values would be copied for each.
    """
    if isinstance(node, str):
        return [] if "\0" in node else None
    if isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        if any("\0" in name for name in members):
            return []
        children: Iterable[tuple[str | int, Any]] = members.items()
    elif isinstance(node, list):
        children = enumerate(cast("list[Any]", node))
    else:
        return None
    for step, child in children:
        way = _way_to_nul(child)
        if way is not None:
            return [*way, step]
    return None
