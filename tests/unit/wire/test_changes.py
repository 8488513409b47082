"""Rows of the journal as records, byte by byte."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from org_events.events import OrganizationEvent
from org_events.results import Result
from org_service.domain.outcomes import JournaledOutcome
from org_service.wire import results as wire
from org_service.wire.changes import Record, encode

ORG = UUID("0a000000-0000-4000-8000-000000000007")
COMMAND = UUID("0b000000-0000-4000-8000-000000000041")
BEFORE = (
    '{"id":"0a000000-0000-4000-8000-000000000007","name":"Ål & \\"Sønn\\"","domain":null,'
    '"created_at":"2026-03-01T12:00:00Z","updated_at":"2026-03-01T12:00:00Z","primary_address":null,'
    '"deactivated":false,"deactivated_at":null,"version":6}'
)
AFTER = BEFORE.replace('"domain":null', '"domain":"al.no"').replace('"version":6', '"version":7')
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UPDATED = JournaledOutcome(
    position=41,
    command_id=COMMAND,
    org_id=ORG,
    version=7,
    event_type="org.updated",
    outcome="applied",
    code=200,
    actor='auth0|"kari"',
    changed='["domain"]',
    before=BEFORE,
    after=AFTER,
    problem=None,
    traceparent=TRACE,
    recorded_at=datetime(2026, 3, 1, 12, 30, 0, 250_999, tzinfo=UTC),
)
REJECTED = UPDATED._replace(
    event_type=None,
    outcome="rejected",
    code=409,
    changed=None,
    before=None,
    after=None,
    problem='{"type":"urn:orgs:problem:name-taken"}',
)


def headers(record: Record | None) -> Mapping[str, bytes | None]:
    """The headers by name; none may come twice."""
    assert record is not None
    found = dict(record[1])
    assert len(found) == len(record[1])
    return found


def body(record: Record | None) -> Any:
    """The JSON of the value."""
    assert record is not None
    return json.loads(record[0] or b"")


def test_an_event_has_the_body_of_the_contract() -> None:
    event = encode(UPDATED).event
    assert event is not None
    assert event[0] == (
        b'{"org_id":"0a000000-0000-4000-8000-000000000007","version":7,"position":41,"changed":["domain"],"before":'
        + BEFORE.encode()
        + b',"after":'
        + AFTER.encode()
        + b',"command_id":"0b000000-0000-4000-8000-000000000041","actor":"auth0|\\"kari\\"",'
        + b'"recorded_at":"2026-03-01T12:30:00.250999Z"}'
    )
    assert OrganizationEvent.model_validate_json(event[0] or b"").after is not None


def test_an_event_has_the_headers_of_the_contract() -> None:
    assert headers(encode(UPDATED).event) == {
        "ce_specversion": b"1.0",
        "ce_id": b"0925fa9d-f318-5f04-b571-1dcb2e3d2113",  # uuid5 of "41"
        "ce_type": b"org.updated",
        "ce_source": b"/orgs",
        "ce_subject": b"0a000000-0000-4000-8000-000000000007",
        "ce_time": b"2026-03-01T12:30:00.250999Z",
        "ce_dataschema": b"urn:orgs:schema:organization-event:1",
        "content-type": b"application/json",
        "ce_orgversion": b"7",
        "ce_position": b"41",
        "ce_commandid": b"0b000000-0000-4000-8000-000000000041",
        "ce_actor": b'auth0|"kari"',
        "traceparent": TRACE.encode(),
    }


def test_headers_without_a_value_are_left_out() -> None:
    records = encode(UPDATED._replace(actor=None, traceparent=None))
    assert body(records.event)["actor"] is None
    for record in (records.event, records.result):
        assert not {"ce_actor", "traceparent"} & headers(record).keys()


def test_a_result_has_the_body_of_the_contract() -> None:
    assert body(encode(UPDATED).result) == {
        "command_id": "0b000000-0000-4000-8000-000000000041",
        "org_id": "0a000000-0000-4000-8000-000000000007",
        "outcome": "applied",
        "code": 200,
        "version": 7,
        "organization": json.loads(AFTER),
        "position": 41,
        "problem": None,
        "final": True,
    }


def test_a_result_has_the_headers_of_the_contract() -> None:
    assert headers(encode(UPDATED).result) == {
        "ce_specversion": b"1.0",
        "ce_id": b"76a500f5-6573-5582-a65a-07d9cc9c6c34",  # uuid5 of "result:41"
        "ce_type": b"org.result",
        "ce_source": b"/orgs",
        "ce_subject": b"0a000000-0000-4000-8000-000000000007",
        "ce_time": b"2026-03-01T12:30:00.250999Z",
        "ce_dataschema": b"urn:orgs:schema:result:1",
        "content-type": b"application/json",
        "ce_position": b"41",
        "ce_commandid": b"0b000000-0000-4000-8000-000000000041",
        "traceparent": TRACE.encode(),
    }


@pytest.mark.parametrize(
    "row", [UPDATED, REJECTED, REJECTED._replace(org_id=None, version=None), UPDATED._replace(after=None)]
)
def test_the_workers_copy_of_a_result_for_a_duplicate_is_the_same(row: JournaledOutcome) -> None:
    result = encode(row).result
    copy = wire.make_result_record(
        derived_from="result:41",
        command_id=row.command_id,
        org_id=row.org_id,
        outcome=row.outcome,
        code=row.code,
        version=row.version,
        organization=row.after,
        position=row.position,
        problem=row.problem,
        recorded_at=row.recorded_at,
        traceparent=row.traceparent,
    )
    assert copy == (encode(row).key, *result)
    assert Result.model_validate_json(
        (result[0] or b"").replace(b'{"type":"urn:orgs:problem:name-taken"}', b"null")
    ).final


def test_a_state_record_is_the_organization_with_version_and_position() -> None:
    records = encode(UPDATED)
    assert records.key == b"0a000000-0000-4000-8000-000000000007"
    assert records.state == (
        AFTER.encode(),
        [("ce_orgversion", b"7"), ("ce_position", b"41"), ("content-type", b"application/json")],
    )


def test_a_deleted_organizations_state_is_a_tombstone() -> None:
    records = encode(UPDATED._replace(event_type="org.deleted", after=None))
    assert records.state == (None, [("ce_orgversion", b"7"), ("ce_position", b"41")])
    assert body(records.event)["after"] is None
    assert body(records.result)["organization"] is None


@pytest.mark.parametrize("outcome", ["unchanged", "rejected"])
def test_a_command_that_changed_nothing_has_only_a_result(outcome: str) -> None:
    records = encode(REJECTED._replace(outcome=outcome))
    assert (records.event, records.state) == (None, None)
    assert body(records.result)["outcome"] == outcome


def test_a_command_without_an_organization_has_its_own_id_as_key() -> None:
    records = encode(REJECTED._replace(org_id=None, version=None))
    assert records.key == b"0b000000-0000-4000-8000-000000000041"
    assert "ce_subject" not in headers(records.result)
    assert (body(records.result)["org_id"], body(records.result)["version"]) == (None, None)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 3, 1, 12, 30, 0, 250_999, tzinfo=UTC), "2026-03-01T12:30:00.250999Z"),
        (datetime(2026, 3, 1, 12, 30, 0, tzinfo=UTC), "2026-03-01T12:30:00Z"),
        (datetime(2026, 3, 1, 14, 30, tzinfo=timezone(timedelta(hours=2))), "2026-03-01T12:30:00Z"),
    ],
)
def test_times_are_utc(moment: datetime, text: str) -> None:
    records = encode(UPDATED._replace(recorded_at=moment))
    assert body(records.event)["recorded_at"] == text
    assert headers(records.result)["ce_time"] == text.encode()
