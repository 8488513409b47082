"""CloudEvents 1.0 over Kafka: binary mode written, binary and structured mode read.

Binary: each attribute is a header `ce_<name>`, the value is the JSON data. Structured: the value is the whole
event (`content-type: application/cloudevents+json`). Source: CloudEvents Kafka protocol binding 1.0.2, section 3.
"""

import base64
import binascii
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import UUID

Headers = list[tuple[str, bytes]]

CONTENT_TYPE: Final = "content-type"
JSON_CONTENT: Final = b"application/json"
STRUCTURED_CONTENT: Final = "application/cloudevents+json"
TRACEPARENT: Final = "traceparent"
SOURCE: Final = "/orgs"
"""The `ce_source` of everything the service publishes."""
EVENT_SCHEMA: Final = "urn:orgs:schema:organization-event:1"
RESULT_SCHEMA: Final = "urn:orgs:schema:result:1"

EVENT_ID_NAMESPACE: Final = UUID("6f8a2c1e-0f57-5f0e-9a3b-6d1d5f0c7e21")
"""An event's `ce_id` is UUIDv5(this, decimal position): the same at every re-send."""


class NotACloudEvent(ValueError):
    """The record can't be read as a CloudEvent; nothing was changed."""


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
    """Whether a record's `content-type` header announces structured mode."""
    return content_type is not None and content_type.lower().startswith(STRUCTURED_CONTENT.encode())


def read(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> CloudEvent:
    """Read a Kafka record in either mode.

    Args:
        headers: As the client gives them; of a repeated header the last counts.
        value: The record's value; `None` reads as empty data.

    Raises:
        NotACloudEvent: A required attribute is missing, or an attribute is not text, or the envelope is no JSON.
    """
    found = {name: content for name, content in headers if content is not None}
    if is_structured(found.get(CONTENT_TYPE)):
        return read_structured(value)
    attributes: dict[str, str] = {}
    for name, content in found.items():
        if name.startswith("ce_"):
            try:
                attributes[name[3:]] = content.decode()
            except UnicodeDecodeError as error:
                raise NotACloudEvent(f"header {name} is not UTF-8") from error
    return _event(attributes, value or b"")


def read_structured(value: bytes | None) -> CloudEvent:
    """Read a structured-mode value.

    Raises:
        NotACloudEvent: It is no JSON object, or lacks `id` or `type`.
    """
    try:
        envelope = json.loads(value or b"")
    except (ValueError, RecursionError) as error:
        raise NotACloudEvent("a structured CloudEvent must be a JSON object") from error
    if not isinstance(envelope, dict):
        raise NotACloudEvent("a structured CloudEvent must be a JSON object")
    members = cast("dict[str, Any]", envelope)
    data = b""
    if "data_base64" in members:
        try:
            data = base64.b64decode(members.pop("data_base64"), validate=True)
        except (TypeError, ValueError, binascii.Error) as error:
            raise NotACloudEvent("data_base64 is not Base64") from error
    elif "data" in members:
        data = json.dumps(members.pop("data"), ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")
    return _event({name: str(content) for name, content in members.items() if content is not None}, data)


def _event(attributes: dict[str, str], data: bytes) -> CloudEvent:
    try:
        event_id, event_type = attributes.pop("id"), attributes.pop("type")
    except KeyError as error:
        raise NotACloudEvent(f"the attribute {error.args[0]} is missing") from error
    return CloudEvent(event_id, event_type, data, attributes.pop("source", ""), attributes)


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
    for name, content in (("ce_actor", actor), ("authorization", authorization), (TRACEPARENT, traceparent)):
        if content is not None:
            headers.append((name, content.encode()))
    return headers
