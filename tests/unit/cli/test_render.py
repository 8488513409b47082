import json
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from org_service.cli import render
from org_service.cli.tail import as_document, line
from org_service.operate import words

ORG = "0190c5f0-7d1c-7b7e-9d57-000000000001"
ADDRESS = {
    "line1": "Storgata 1",
    "line2": None,
    "city": "Oslo",
    "region": None,
    "postal_code": "0155",
    "country": "NO",
}


def record(value: bytes | None, *, key: bytes | None = ORG.encode(), **headers: bytes) -> ConsumerRecord[bytes, bytes]:
    named: Any = SimpleNamespace(
        topic="orgs.x", partition=3, offset=17, timestamp=1_700_000_000_123, key=key, value=value,
        headers=tuple(headers.items()),
    )  # fmt: skip
    return named


def event(changed: list[str], before: Any, after: Any, kind: bytes = b"org.updated") -> ConsumerRecord[bytes, bytes]:
    body = {"version": 3, "changed": changed, "before": before, "after": after, "actor": "alice"}
    return record(json.dumps(body).encode(), ce_type=kind)


def test_an_event_shows_version_name_and_each_change() -> None:
    shown = line("events", event(["domain"], {"name": "Acme", "domain": "acme.com"}, {"name": "Acme", "domain": None}))
    assert shown.plain == "22:13:20.123    v3 updated     Acme  domain acme.com → null  by alice"


def test_a_new_organization_is_shown_with_what_it_has() -> None:
    after = {"name": "Acme", "domain": "acme.com", "primary_address": ADDRESS}
    shown = line("events", event(["name", "domain", "primary_address"], None, after, b"org.created"))
    assert shown.plain.endswith(
        "created     Acme  domain acme.com · primary_address Storgata 1, 0155, Oslo, NO  by alice"
    )


def test_a_deactivation_reads_no_and_yes() -> None:
    shown = line(
        "events", event(["deactivated"], {"name": "A", "deactivated": False}, {"name": "A", "deactivated": True})
    )
    assert "deactivated no → yes" in shown.plain


@pytest.mark.parametrize(
    "bad",
    [
        record(b"\xff\xfe"),
        record(b"[1, 2]"),
        record(None),
        record(b"{}", ce_type=b"org.updated"),
        record(b'{"version": 1, "changed": 5, "before": {}, "after": []}', ce_type=b"\xff"),
        record(b'{"version": 1, "changed": ["domain"], "before": 7, "after": []}', ce_type=b"org.updated"),
    ],
)
def test_an_unreadable_record_is_shown_by_its_coordinates(bad: ConsumerRecord[bytes, bytes]) -> None:
    shown = line("events", bad).plain
    assert "unreadable" in shown
    assert "orgs.x[3] offset 17" in shown


@pytest.mark.parametrize("what", ["results", "commands"])
def test_results_and_commands_that_cannot_be_read_are_shown_too(what: Any) -> None:
    assert "orgs.x[3] offset 17" in line(what, record(b"\x80", key=None)).plain


def test_a_command_shows_actor_and_request() -> None:
    shown = line(
        "commands", record(b'{"org_id": "x", "domain": null}', ce_id=b"c-1", ce_type=b"org.update", ce_actor=b"bob")
    )
    assert shown.plain == f"22:13:20.123  update      {ORG}  domain null  by bob  command c-1"


def test_control_sequences_of_a_publisher_do_not_reach_the_terminal() -> None:
    hostile = record(
        b'{"org_id": "x", "na\\u001b[2Jme": "\\u001b]0;pwned\\u0007", "domain": "\\u202eevil"}',
        ce_id=b"c\x1b[1m", ce_type=b"org.\x1bc", ce_actor=b"\x07",
    )  # fmt: skip
    assert line("commands", hostile).plain.isprintable()


@pytest.mark.parametrize(
    ("claimed", "shown"),
    [(1_700_000_000_123, "22:13:20.123"), (-1, "23:59:59.999"), (-(2**60), f"-{2**60} ms"), (2**62, f"{2**62} ms")],
)
def test_a_time_outside_the_calendar_is_shown_as_a_number(claimed: int, shown: str) -> None:
    assert render.clock(claimed) == shown


def test_a_long_value_is_cut() -> None:
    assert words.value("x" * 500) == "x" * 119 + "…"


def test_a_rejection_names_every_wrong_field() -> None:
    problem = {"title": "A field is invalid", "detail": "2", "errors": [{"path": "name", "message": "Too long"}]}
    body = {"command_id": "c-1", "org_id": ORG, "outcome": "rejected", "code": 422, "version": 1, "problem": problem}
    shown = line("results", record(json.dumps(body).encode()))
    assert "rejected  422  A field is invalid: 2 [name: Too long]  command c-1" in shown.plain


def test_json_leaves_nothing_out_whatever_the_bytes() -> None:
    document = as_document(record(b"\xff\x00", key=b"\xfe", good=b"text", bad=b"\xff"))
    assert document["value_base64"] == "/wA="
    assert document["key"] == {"base64": "/g=="}
    assert document["headers"] == {"good": "text", "bad": {"base64": "/w=="}}
    assert (document["topic"], document["partition"], document["offset"]) == ("orgs.x", 3, 17)


def test_json_parses_the_value_where_it_can() -> None:
    assert as_document(record(b'{"a": 1}'))["value"] == {"a": 1}
    assert as_document(record(None))["value"] is None
