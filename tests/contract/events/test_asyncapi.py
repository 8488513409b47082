"""The committed AsyncAPI document: it is that of the models, it is sound, and the service writes what it says."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest

from org_events import asyncapi
from org_events.cloudevents import command_headers
from org_events.commands import COMMANDS
from org_events.events import EventType
from org_events.schemas import to_text
from org_service.domain.wire import result_body, result_headers
from org_service.relay.records import Record, encode
from org_service.store.journal import JournalRow

pytestmark = pytest.mark.contract

FILE = Path(__file__).parents[3] / "docs" / "asyncapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))

COMMAND = UUID("0192d3a0-0000-7000-8000-0000000000aa")
ORG = UUID("0192d3a0-0000-7000-8000-000000000001")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ORGANIZATION = json.dumps(
    {
        "id": str(ORG),
        "name": "Acme",
        "domain": None,
        "created_at": "2025-01-02T03:04:05.678901Z",
        "updated_at": "2025-01-02T03:04:05.678901Z",
        "primary_address": None,
        "deactivated": False,
        "deactivated_at": None,
        "version": 2,
    }
)
APPLIED = JournalRow(
    position=41,
    command_id=COMMAND,
    org_id=ORG,
    version=2,
    event_type="org.updated",
    outcome="applied",
    code=200,
    actor="ada",
    changed='["name"]',
    before=ORGANIZATION,
    after=ORGANIZATION,
    problem=None,
    traceparent=TRACEPARENT,
    recorded_at=datetime(2025, 1, 2, 3, 4, 5, 678901, UTC),
)
DELETED = APPLIED._replace(event_type="org.deleted", after=None, actor=None, traceparent=None)
UNREADABLE = JournalRow(
    position=42,
    command_id=COMMAND,
    org_id=None,
    version=None,
    event_type=None,
    outcome="rejected",
    code=400,
    actor=None,
    changed=None,
    before=None,
    after=None,
    problem='{"type":"urn:orgs:problem:unreadable-command","title":"t","status":400,"detail":"d","errors":[]}',
    traceparent=None,
    recorded_at=datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def test_the_committed_document_is_that_of_the_models() -> None:
    assert FILE.read_text(encoding="utf-8") == to_text(asyncapi.document()), (
        "run: python -m org_events.asyncapi docs/asyncapi.json"
    )


def test_every_message_of_the_contract_is_on_its_channel() -> None:
    channels = {channel["address"]: set(channel["messages"]) for channel in DOCUMENT["channels"].values()}
    assert channels == {
        "orgs.commands": set(COMMANDS),
        "orgs.results": {"org.result"},
        "orgs.events": {event.value for event in EventType},
        "orgs.state": {"organization", "organization-deleted"},
    }


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from _references(child)
    elif isinstance(node, list):
        for child in node:
            yield from _references(child)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(_references(DOCUMENT)):
        node = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def fits(message: str, headers: list[tuple[str, bytes | None]], value: bytes | None) -> None:
    """Check a record against a message of the document: headers all known, none missing, body as its schema says."""
    described = DOCUMENT["components"]["messages"][message]
    texts = {name: (content or b"").decode() for name, content in headers}
    assert texts.keys() <= described["headers"]["properties"].keys()
    formats = jsonschema.Draft7Validator.FORMAT_CHECKER
    jsonschema.validate(texts, described["headers"], format_checker=formats)
    body = None if value is None else json.loads(value)
    jsonschema.validate(body, DOCUMENT | described["payload"], format_checker=formats)


def _record(record: Record | None) -> tuple[list[tuple[str, bytes | None]], bytes | None]:
    assert record is not None
    return record.headers, record.value


def test_what_the_relay_writes_is_what_the_document_says() -> None:
    applied, deleted, unreadable = encode(APPLIED), encode(DELETED), encode(UNREADABLE)
    fits("org.updated", *_record(applied.event))
    fits("organization", *_record(applied.state))
    fits("org.result", *_record(applied.result))
    fits("org.deleted", *_record(deleted.event))
    fits("organization-deleted", *_record(deleted.state))
    fits("org.result", *_record(deleted.result))
    fits("org.result", *_record(unreadable.result))


def test_what_the_worker_answers_by_itself_is_what_the_document_says() -> None:
    body = result_body(
        command_id=COMMAND,
        org_id=ORG,
        outcome="parked",
        code=500,
        version=None,
        organization=None,
        position=None,
        problem=None,
        final=False,
    )
    headers = result_headers(
        derived_from="orgs.commands/3/14",
        command_id=COMMAND,
        org_id=ORG,
        position=None,
        time="2025-01-02T03:04:05Z",
        traceparent=TRACEPARENT,
    )
    fits("org.result", [*headers], body)


def test_what_a_publisher_writes_is_what_the_document_says() -> None:
    headers = command_headers(
        command_id=COMMAND,
        command_type="org.update",
        source="/billing",
        actor="ada",
        authorization="Bearer x",
        traceparent=TRACEPARENT,
    )
    fits("org.update", [*headers], COMMANDS["org.update"](org_id=ORG).to_body())
