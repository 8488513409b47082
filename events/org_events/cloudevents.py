"""CloudEvents 1.0 over Kafka: binary mode written, binary and structured mode read.

Binary: each attribute is a header `ce_<name>`, the value is the JSON data. Structured: the value is the whole
event (`content-type: application/cloudevents+json`). Source: CloudEvents Kafka protocol binding 1.0.2, section 3.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

Headers = list[tuple[str, bytes]]

CONTENT_TYPE: Final = "content-type"
JSON_CONTENT: Final = b"application/json"
STRUCTURED_CONTENT: Final = "application/cloudevents+json"
AUTHORIZATION: Final = "authorization"
TRACEPARENT: Final = "traceparent"
TRACEPARENT_ATTRIBUTE: Final = "ce_traceparent"
"""Where SDKs put the trace context (CloudEvents extension Distributed Tracing); `traceparent` comes first."""
STRUCTURED_BYTES_MAX: Final = 128 * 1024
"""Of a structured event; a longer one isn't parsed. The longest body (64 KiB) as Base64 is 86 KiB; the rest is room for
the other attributes and white space."""
_ONE_VALUE: Final = frozenset({"ce_id", "ce_type", "ce_actor", CONTENT_TYPE, AUTHORIZATION})
"""Headers that decide what a record is and whose: two values of one would let each reader believe another."""
SOURCE: Final = "/orgs"
"""The `ce_source` of everything the service publishes."""
EVENT_SCHEMA: Final = "urn:orgs:schema:organization-event:1"
RESULT_SCHEMA: Final = "urn:orgs:schema:result:1"

EVENT_ID_NAMESPACE: Final = UUID("6f8a2c1e-0f57-5f0e-9a3b-6d1d5f0c7e21")
"""An event's `ce_id` is UUIDv5(this, decimal position): the same at every re-send."""


_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a CloudEvents attribute may not hold (section 3.1, type String): controls and lone surrogates."""


class NotACloudEvent(ValueError):
    """The record can't be read as a CloudEvent; nothing was changed.

    Attributes:
        event_id: The attribute `id` where at least that could be read, so that its sender can be answered.
    """

    def __init__(self, message: str, event_id: str | None = None) -> None:
        super().__init__(message)
        self.event_id = event_id


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """A CloudEvent as read from a Kafka record: context attributes without `ce_`, and the JSON data as bytes."""

    id: str
    type: str
    data: bytes
    source: str = ""
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    """The other attributes, extensions included, as text."""


def is_structured(content_type: bytes | None) -> bool:
    """Whether a record's `content-type` header announces structured mode; parameters as `; charset=utf-8` are fine."""
    return content_type is not None and content_type.partition(b";")[0].strip().lower() == STRUCTURED_CONTENT.encode()


def index_headers(headers: Sequence[tuple[str, bytes | None]]) -> tuple[dict[str, bytes | None], Sequence[str]]:
    """A record's headers by their names in lower case, and the names of those that contradict themselves.

    Kafka's header names are case-sensitive, those who write them are not: a token in a header named `Authorization` is
    a token. A header may be there several times: with one value it is one header. With several values the last counts,
    except that id, type, actor, content type and token must not contradict themselves, and that a contradictory
    `traceparent` counts as absent (W3C Trace Context, section 3.2.2).

    Returns:
        Also headers without a value; and which of those that must not contradict themselves do, as a rule none.
    """
    found: dict[str, bytes | None] = dict(headers)
    # The way of nearly all records; joined, because one look at all names costs less than a look at each.
    if len(found) == len(headers) and "".join(found).islower():
        return found, ()
    found = {}
    twice: list[str] = []
    for raw_name, content in headers:
        name = raw_name.lower()
        if found.get(name, content) != content:
            twice.append(name)
        found[name] = content
    if TRACEPARENT in twice:
        del found[TRACEPARENT]
    return found, [name for name in twice if name in _ONE_VALUE]


def describe_contradiction(name: str) -> str:
    """What to say of a header that `index_headers` found to contradict itself."""
    return f"the header {name} is repeated with different values"


def read(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> CloudEvent:
    """Read a Kafka record in either mode.

    Args:
        headers: As the client gives them; read as `index_headers` says, one without a value counts as absent.
        value: The record's value; `None` reads as empty data.

    Raises:
        NotACloudEvent: `id` or `type` is missing, an attribute is not text or contradicts itself, or a structured
            envelope is not JSON or longer than `STRUCTURED_BYTES_MAX`.
    """
    found, twice = index_headers(list(headers))
    if is_structured(found.get(CONTENT_TYPE)):
        event = read_structured(value)
        outside = [name for name in twice if not name.startswith("ce_")]  # the event is all in the value
        if outside:
            raise NotACloudEvent(describe_contradiction(outside[0]), event.id)
        return event
    attributes: dict[str, str] = {}
    undecodable: str | None = None
    for name, content in found.items():
        if name.startswith("ce_") and content is not None:
            try:
                attributes[name[3:]] = content.decode()
            except UnicodeDecodeError:
                undecodable = name
    if twice:
        raise NotACloudEvent(describe_contradiction(twice[0]), None if "ce_id" in twice else attributes.get("id"))
    if undecodable is not None:
        raise NotACloudEvent(f"header {undecodable} is not UTF-8", attributes.get("id"))
    return _event(attributes, value or b"")


def read_structured(value: bytes | None) -> CloudEvent:
    """Read a structured-mode value: UTF-8 JSON. Members that are null count as absent.

    `data` is written out again as compact JSON, `data_base64` is decoded.

    Raises:
        NotACloudEvent: It is longer than `STRUCTURED_BYTES_MAX` (then it wasn't parsed), is not a JSON object, lacks
            `id` or `type`, has both kinds of data, or an attribute twice, or one that is neither text, integer nor
            boolean.
    """
    content = value or b""
    if len(content) > STRUCTURED_BYTES_MAX:
        raise NotACloudEvent(f"the event has {len(content)} bytes; at most {STRUCTURED_BYTES_MAX} are accepted")
    last: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal last
        last = pairs  # the envelope's own come last
        return dict(pairs)

    try:
        envelope = json.loads(content.decode(), object_pairs_hook=keep)
    except RecursionError as error:
        raise NotACloudEvent("the event is nested too deeply") from error
    except ValueError as error:
        raise NotACloudEvent("a structured CloudEvent must be a JSON object") from error
    if not isinstance(envelope, dict):
        raise NotACloudEvent("a structured CloudEvent must be a JSON object")
    _check_unique(last)
    members = {name: member for name, member in cast("dict[str, Any]", envelope).items() if member is not None}
    raw_id = members.get("id")
    event_id = raw_id if isinstance(raw_id, str) else None
    data = _structured_data(members, event_id)
    return _event({name: _attribute(name, member, event_id) for name, member in members.items()}, data)


def _check_unique(pairs: list[tuple[str, Any]]) -> None:
    """Of two members with one name each reader could believe another."""
    times = Counter(name for name, _ in pairs)
    twice = next((name for name, count in times.items() if count > 1), None)
    if twice is not None:
        ids = [member for name, member in pairs if name == "id"]
        event_id = ids[0] if len(ids) == 1 and isinstance(ids[0], str) else None
        raise NotACloudEvent(f"the attribute {twice[:50]!a} occurs twice", event_id)


def _structured_data(members: dict[str, Any], event_id: str | None) -> bytes:
    """Take the data out of the members of an envelope."""
    if "data" in members and "data_base64" in members:
        raise NotACloudEvent("data and data_base64 must not both be present", event_id)
    if "data_base64" in members:
        try:
            return base64.b64decode(members.pop("data_base64"), validate=True)
        except (TypeError, ValueError) as error:
            raise NotACloudEvent("data_base64 is not Base64", event_id) from error
    if "data" not in members:
        return b""
    try:
        text = json.dumps(members.pop("data"), ensure_ascii=False, separators=(",", ":"))
    except RecursionError as error:
        raise NotACloudEvent("data is nested too deeply", event_id) from error
    # A lone surrogate makes bytes that aren't UTF-8: whoever reads the data rejects it, as in binary mode.
    return text.encode(errors="surrogatepass")


def _attribute(name: str, member: object, event_id: str | None) -> str:
    """An attribute of an envelope in its text form (CloudEvents 1.0.2, section 3.1)."""
    if isinstance(member, str):
        return member
    if isinstance(member, bool):
        return "true" if member else "false"
    if isinstance(member, int):
        return str(member)
    raise NotACloudEvent(f"the attribute {name[:50]!a} must be text, an integer or a boolean", event_id)


def _event(attributes: dict[str, str], data: bytes) -> CloudEvent:
    event_id = attributes.get("id") or None
    for name, content in attributes.items():
        if not content.isprintable() and _FORBIDDEN.search(content):
            raise NotACloudEvent(f"the attribute {name[:50]!a} contains a control character", event_id)
    for name in ("id", "type"):
        if not attributes.get(name):
            raise NotACloudEvent(f"the attribute {name} is missing", event_id)
    return CloudEvent(attributes.pop("id"), attributes.pop("type"), data, attributes.pop("source", ""), attributes)


def command_headers(
    *,
    command_id: UUID,
    command_type: str,
    source: str,
    actor: str | None = None,
    authorization: str | None = None,
    traceparent: str | None = None,
) -> Headers:
    """The headers of a command in binary mode.

    Args:
        command_id: Chosen by the publisher, the same at every retry.
        command_type: The `type` of the command's class.
        source: Names the publishing service, as a URI reference (`/billing`).
        actor: On whose behalf; believed only by brokers that are closed to all but trusted publishers.
        authorization: `Bearer <JWT>`.
        traceparent: W3C trace context, handed on to event and result.
    """
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", str(command_id).encode()),
        ("ce_type", command_type.encode()),
        ("ce_source", source.encode()),
        (CONTENT_TYPE, JSON_CONTENT),
    ]
    for name, content in (("ce_actor", actor), (AUTHORIZATION, authorization), (TRACEPARENT, traceparent)):
        if content is not None:
            headers.append((name, content.encode()))
    return headers
