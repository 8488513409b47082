"""What is shown of a parked record: nothing that it says, unless it is revealed; and never a token."""

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from org_service.domain.outcomes import StoredRecord
from org_service.domain.reasons import ParkedState, ParkReason
from org_service.operate.parked_contents import MASK, describe

ORG = UUID("0190c5f0-7d1c-7b7e-9d57-000000000001")
AT = datetime(2026, 11, 28, tzinfo=UTC)


def stored(value: bytes | None, key: bytes | None = None, **headers: str) -> StoredRecord:
    kept = [[name, base64.b64encode(content.encode()).decode()] for name, content in headers.items()]
    return StoredRecord(
        id=17,
        topic="orgs.commands",
        partition=0,
        offset=4,
        broker_time=AT,
        key=key,
        value=value,
        headers=json.dumps(kept),
        org_id=ORG,
        command_id=ORG,
        request_digest=None,
        reason=ParkReason.HANDLER_RAISED,
        detail="KeyError in decide, line 3",
        attempts=2,
        state=ParkedState.OPEN,
        actor="ann",
        authenticated_by=None,
        value_bytes=None,
        recorded_at=AT,
    )


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        (None, None),
        (b"Acme AS", MASK),
        (b"\xff\xfe", MASK),
        (b'"Acme AS"', MASK),
        (
            b'{"org_id": "x", "name": "Acme", "domain": null, "primary_address": {"city": "Oslo"}, "tags": ["a", 1]}',
            {"org_id": "x", "name": MASK, "domain": None, "primary_address": {"city": MASK}, "tags": [MASK, MASK]},
        ),
        (b'{"id": {"name": "Acme"}}', {"id": {"name": MASK}}),
    ],
)
def test_of_a_value_the_names_of_its_fields_are_shown(value: bytes | None, masked: Any) -> None:
    assert describe(stored(value), reveal=False)["value"] == masked


@pytest.mark.parametrize(
    ("value", "shown"),
    [(b"Acme AS", "Acme AS"), (b"\xff\xfe", "base64://4="), (b'{"name": ["Acme"]}', {"name": ["Acme"]})],
)
def test_a_reveal_shows_all_of_a_value(value: bytes, shown: Any) -> None:
    assert describe(stored(value), reveal=True)["value"] == shown


def test_a_token_in_a_value_is_never_shown() -> None:
    value = b'{"data": {"Authorization": "Bearer e30"}, "ce_authorization": ["Bearer e30"]}'
    shown = describe(stored(value), reveal=True)["value"]
    assert shown == {"data": {"Authorization": MASK}, "ce_authorization": MASK}


def test_keys_and_headers_are_shown_where_they_are_ours() -> None:
    record = stored(b"{}", b"Acme AS", ce_type="org.update", traceparent="00-1", note="Acme AS")
    masked, revealed = describe(record, reveal=False), describe(record, reveal=True)
    assert (masked["key"], revealed["key"]) == (MASK, "Acme AS")
    ours = {"ce_type": "org.update", "traceparent": "00-1"}
    assert (masked["headers"], revealed["headers"]) == (ours | {"note": MASK}, ours | {"note": "Acme AS"})
    assert describe(stored(b"{}", str(ORG).encode()), reveal=False)["key"] == str(ORG)


def test_what_is_known_of_a_record_is_shown_beside_it() -> None:
    shown = describe(stored(b"{}", ce_type="org.update"), reveal=False)
    known = ("state", "releases_left", "type", "actor", "value_bytes", "revealed")
    assert [shown[name] for name in known] == ["open", 2, "org.update", "ann", 2, False]
    exhausted = describe(stored(b"{}")._replace(attempts=4), reveal=False)
    assert (exhausted["state"], exhausted["releases_left"]) == ("exhausted", 0)
