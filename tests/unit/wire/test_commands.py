"""Reading records: what is a command, what is rejected with 400 or 422, and what can't be read at all."""

import base64
import dataclasses
import json
import time
import tracemalloc
from collections.abc import Sequence
from uuid import UUID

import pytest

from org_events.commands import PAYLOAD_BYTES_MAX, UpdateOrganization
from org_service.domain.decide import Invalid
from org_service.domain.requests import Rejected, Request, Unreadable, read_broker_time
from org_service.wire.commands import read
from tests.support.records import FakeRecord

ORG = "0b5c6f0e-0000-4000-8000-00000000000a"
COMMAND = "11111111-1111-4111-8111-111111111111"
ADDRESS = {"line1": "Storgata 1", "city": "Oslo", "country": "NO"}
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Headers = Sequence[tuple[str, bytes | None]]

HEADERS: Headers = [("ce_id", COMMAND.encode()), ("ce_type", b"org.update"), ("ce_actor", b"ann")]


def record(
    value: bytes | None = json.dumps({"org_id": ORG, "name": "Acme"}).encode(),
    *,
    key: bytes | None = ORG.encode(),
    headers: Headers = HEADERS,
) -> FakeRecord:
    return FakeRecord(key, value, headers)


def readable(of: FakeRecord) -> Request:
    request = read(of)
    assert isinstance(request, Request)
    return request


def test_a_binary_command() -> None:
    request = readable(record(headers=[*HEADERS, ("traceparent", TRACE)]))
    assert request.command == UpdateOrganization(org_id=UUID(ORG), name="Acme")
    assert (request.command_id, request.org_id, request.actor) == (UUID(COMMAND), UUID(ORG), "ann")
    assert request.traceparent == TRACE.decode()


def test_a_structured_command_is_the_same_command() -> None:
    envelope = {
        "specversion": "1.0",
        "id": COMMAND,
        "type": "org.update",
        "source": "/crm",
        "actor": "ann",
        "traceparent": TRACE.decode(),
        "data": {"name": "Acme", "org_id": ORG},
    }
    headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    request = readable(record(json.dumps(envelope).encode(), headers=headers))
    binary = readable(record(headers=[*HEADERS, ("traceparent", TRACE)]))
    assert request._replace(record=binary.record) == binary


def test_the_digest_depends_on_the_request_and_not_its_spelling() -> None:
    digest = readable(record()).digest
    respelled = f'{{ "name" : "Acme" , "org_id":"{ORG}" }}'.encode()
    assert readable(record(respelled)).digest == digest
    assert readable(record(json.dumps({"org_id": ORG, "name": "acme"}).encode())).digest != digest
    other_type = [("ce_id", COMMAND.encode()), ("ce_type", b"org.create")]
    assert readable(record(headers=other_type)).digest != digest


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_id", None)],
        [("ce_id", b"")],
        [("ce_id", b"\xff\xfe")],
        [("ce_id", b"not a uuid, but thirty-six characters")],
        [("ce_id", COMMAND.replace("-", "").encode())],
        [("content-type", b"application/cloudevents+json")],
        [("ce_id", COMMAND.encode()), ("ce_id", ORG.encode())],
        [("ce_id", COMMAND.encode()), ("CE_ID", None)],
    ],
)
def test_without_a_readable_command_id_a_record_is_unreadable(headers: Headers) -> None:
    assert isinstance(read(record(headers=headers)), Unreadable)


def test_a_broken_envelope_with_a_readable_id_can_be_answered() -> None:
    headers = [("content-type", b"application/cloudevents+json")]
    request = readable(record(json.dumps({"id": COMMAND, "data": {}}).encode(), headers=headers))
    assert request.command == Rejected("", "The record is not a CloudEvent: the attribute type is missing.")
    assert (request.command_id, request.org_id) == (UUID(COMMAND), UUID(ORG))


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (record(b"{"), "not JSON"),
        (record(b""), "not JSON"),
        (record(None), "not JSON"),
        (record(b"\xff"), "not JSON"),
        (record(b'{"name": "\\ud800"}'), "not JSON"),
        (record(b"[" * 70_000), "65536"),
        (record(b"x" * (PAYLOAD_BYTES_MAX + 1)), "65537 bytes"),
        (record(b"[]"), "JSON object"),
        (record(b'{"a":' * 17 + b"1" + b"}" * 17), "more than 16"),
        (record(b'{"a":' * 1000 + b"1" + b"}" * 1000), "more than 16"),
        (record(b"{}"), "org_id"),
        (record(b'{"org_id": 7}'), "org_id"),
        (record(b'{"org_id": "urn:uuid:0b5c6f0e-0000-4000-8000-00000000000a"}'), "org_id"),
        (record(key=None), "key"),
        (record(key=ORG.upper().encode()), "key"),
        (record(key=COMMAND.encode()), "key"),
        (record(headers=[HEADERS[0]]), "ce_type is missing"),
        (record(headers=[HEADERS[0], ("ce_type", b"org.explode")]), "Unknown ce_type"),
        (record(headers=[HEADERS[0], ("ce_type", b"\xff")]), "Unknown ce_type"),
        (record(headers=[*HEADERS, ("ce_actor", b"\xff")]), "ce_actor"),
        (record(headers=[*HEADERS, ("ce_actor", b"a\x00b")]), "ce_actor"),
        (record(headers=[*HEADERS, ("ce_actor", b"a" * 201)]), "ce_actor"),
    ],
)
def test_a_record_that_is_not_a_command_is_rejected(of: FakeRecord, says: str) -> None:
    request = readable(of)
    assert isinstance(request.command, Rejected)
    assert says in request.command.detail


TOKEN = b"Bearer x.y.z"
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json")]


def envelope(**members: object) -> bytes:
    event = {"id": COMMAND, "type": "org.update", "data": {"name": "Acme", "org_id": ORG}}
    return json.dumps(event | members).encode()


@pytest.mark.parametrize(
    ("headers", "authorization"),
    [
        ([], None),
        ([("authorization", TOKEN)], TOKEN),
        ([("Authorization", TOKEN)], TOKEN),
        ([("AUTHORIZATION", TOKEN), ("authorization", TOKEN)], TOKEN),
        ([("authorization", None)], b""),
        ([("Authorization", None)], b""),
        ([("Authorization", b"")], b""),
    ],
)
def test_a_token_is_found_however_its_header_is_written(headers: Headers, authorization: bytes | None) -> None:
    assert readable(record(headers=[*HEADERS, *headers])).authorization == authorization
    assert readable(record(envelope(), headers=[*STRUCTURED, *headers])).authorization == authorization


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ([("authorization", TOKEN), ("Authorization", b"Bearer other")], "The header authorization is repeated"),
        ([("authorization", TOKEN), ("authorization", None)], "The header authorization is repeated"),
        ([("ce_type", b"org.delete")], "The header ce_type is repeated"),
        ([("Ce_Actor", b"mallory")], "The header ce_actor is repeated"),
        ([("ce_authorization", TOKEN)], "Send the token in the record's header authorization"),
    ],
)
def test_a_record_that_contradicts_itself_is_rejected(headers: Headers, says: str) -> None:
    request = readable(record(headers=[*HEADERS, *headers]))
    assert isinstance(request.command, Rejected)
    assert request.command.detail.startswith(says)
    assert request.command_id == UUID(COMMAND)


def test_a_token_among_the_attributes_of_a_structured_event_is_rejected_and_not_overlooked() -> None:
    request = readable(record(envelope(authorization="Bearer x.y.z"), headers=STRUCTURED))
    assert isinstance(request.command, Rejected)
    assert request.command.detail.startswith("Send the token in the record's header authorization")


def test_headers_that_repeat_attributes_of_a_structured_event_are_ignored() -> None:
    headers = [*STRUCTURED, ("ce_actor", b"mallory"), ("ce_id", ORG.encode()), ("ce_type", b"x"), ("ce_type", b"y")]
    plain = readable(record(envelope(), headers=STRUCTURED))
    assert readable(record(envelope(), headers=headers))._replace(record=plain.record) == plain


def test_header_names_are_case_insensitive() -> None:
    headers: Headers = [(name.upper(), value) for name, value in [*HEADERS, ("traceparent", TRACE)]]
    same = readable(record(headers=[*HEADERS, ("traceparent", TRACE)]))
    assert readable(record(headers=headers))._replace(record=same.record) == same


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([("ce_traceparent", TRACE)], TRACE.decode()),
        ([("ce_traceparent", TRACE[:-1] + b"0"), ("traceparent", TRACE)], TRACE.decode()),
        ([("traceparent", TRACE), ("traceparent", TRACE[:-1] + b"0")], None),
    ],
)
def test_the_trace_context_is_kept_from_wherever_it_is(headers: Headers, kept: str | None) -> None:
    assert readable(record(headers=[*HEADERS, *headers])).traceparent == kept


def test_a_structured_event_that_is_too_long_is_unreadable_before_it_is_parsed() -> None:
    unreadable = read(record(b" " * 131_073, headers=STRUCTURED))
    assert isinstance(unreadable, Unreadable)
    assert unreadable.detail == "the event has 131073 bytes; at most 131072 are accepted"


def test_a_body_of_maximum_size_is_read_in_structured_mode_too() -> None:
    body = json.dumps({"org_id": ORG, "name": "Acme", "x": "x" * (PAYLOAD_BYTES_MAX - 90)}).encode()
    assert PAYLOAD_BYTES_MAX - 20 < len(body) <= PAYLOAD_BYTES_MAX
    data = base64.b64encode(body).decode()
    request = readable(record(envelope(data=None, data_base64=data), headers=STRUCTURED))
    assert request.command == UpdateOrganization(org_id=UUID(ORG), name="Acme")


def test_a_rejection_has_the_key_that_can_be_read() -> None:
    body = json.dumps({"org_id": ORG}).encode()
    assert readable(record(b"{")).org_id == UUID(ORG)
    assert readable(record(body, key=b"?")).org_id == UUID(ORG)
    assert readable(record(b"{", key=b"?")).org_id is None


def test_only_ascii_of_an_unknown_type_is_repeated() -> None:
    request = readable(record(headers=[HEADERS[0], ("ce_type", b"\x00\xe2\x82\xac" + b"x" * 500)]))
    assert request.command.type.isascii()
    assert "\x00" not in request.command.type
    assert len(request.command.type) == 100


@pytest.mark.parametrize(
    ("fields", "path", "code"),
    [
        ({"name": ""}, "name", "blank"),
        ({"name": None}, "name", "string_type"),
        ({"name": 7}, "name", "string_type"),
        ({"domain": "acme"}, "domain", "too_few_labels"),
        ({"expected_version": "7"}, "expected_version", "int_type"),
        ({"expected_version": 0}, "expected_version", "greater_than_equal"),
        (
            {"primary_address": {"line1": "x", "city": "y", "country": "no"}},
            "primary_address.country",
            "unknown_country",
        ),
        ({"primary_address": {"line1": "x", "country": "NO"}}, "primary_address.city", "missing"),
        ({"if_current": {"domain": "-"}}, "if_current.domain", "not_a_host_name"),
        ({"name": "a\x00"}, "name", "control_character"),
        ({"future": {"deep": ["a\x00"]}}, "future.deep.0", "nul"),
        ({"if_current": {"nmae": "Acme"}}, "if_current.nmae", "extra_forbidden"),
        (
            {"if_current": {"primary_address": {**ADDRESS, "lin2": "x"}}},
            "if_current.primary_address.lin2",
            "extra_forbidden",
        ),
        ({"if_current": [["domain", "acme.com"]]}, "if_current", "model_type"),
    ],
)
def test_a_wrong_field_is_reported_with_path_and_code(fields: dict[str, object], path: str, code: str) -> None:
    request = readable(record(json.dumps({"org_id": ORG, **fields}).encode()))
    assert isinstance(request.command, Invalid)
    assert [(error.path, error.code) for error in request.command.errors] == [(path, code)]
    assert request.org_id == UUID(ORG)


def test_every_mistake_is_named_beside_a_misspelt_precondition() -> None:
    body = {"org_id": ORG, "domain": "acme", "if_current": {"domain": "-", "nmae": "Acme"}}
    command = readable(record(json.dumps(body).encode())).command
    assert isinstance(command, Invalid)
    assert [error.path for error in command.errors] == ["if_current.domain", "domain", "if_current.nmae"]


@pytest.mark.parametrize("field", ["primary_address", "if_current"])
def test_the_json_of_an_object_where_the_object_should_be_is_explained(field: str) -> None:
    command = readable(record(json.dumps({"org_id": ORG, field: json.dumps(ADDRESS)}).encode())).command
    assert isinstance(command, Invalid)
    assert [(error.path, error.message) for error in command.errors] == [
        (field, "Must be an object, not a string with its JSON")
    ]
    number = readable(record(json.dumps({"org_id": ORG, field: 7}).encode())).command
    assert isinstance(number, Invalid)
    assert [error.message for error in number.errors] == ["Must be an object"]


def test_an_integer_may_be_written_with_a_point_and_is_the_same_request() -> None:
    pointed, plain = (
        readable(record(b'{"org_id":"%b","expected_version":%b}' % (ORG.encode(), version)))
        for version in (b"7.0", b"7")
    )
    assert pointed.command == UpdateOrganization(org_id=UUID(ORG), expected_version=7)
    assert pointed.digest == plain.digest


@pytest.mark.parametrize("version", [b"7.5", b"1e300", b"1e16", b'"7.0"', b"true"])
def test_a_value_that_is_not_an_integer_is_rejected_as_it_was_written(version: bytes) -> None:
    rejected = readable(record(b'{"org_id":"%b","expected_version":%b}' % (ORG.encode(), version)))
    assert isinstance(rejected.command, Invalid)
    assert [error.path for error in rejected.command.errors] == ["expected_version"]


def test_a_byte_order_mark_is_ignored() -> None:
    plain = b'{"org_id":"%b","name":"Acme"}' % ORG.encode()
    marked = readable(record(b"\xef\xbb\xbf" + plain))
    assert (marked.command, marked.digest) == (
        UpdateOrganization(org_id=UUID(ORG), name="Acme"),
        readable(record(plain)).digest,
    )
    twice = readable(record(b"\xef\xbb\xbf" * 2 + plain))
    assert isinstance(twice.command, Rejected)


@pytest.mark.parametrize("reserved", ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"])
def test_a_reserved_uuid_is_rejected(reserved: str) -> None:
    headers = [("ce_id", reserved.encode()), HEADERS[1]]
    request = readable(record(headers=headers))
    assert isinstance(request.command, Rejected)
    assert request.command_id == UUID(reserved)
    key = reserved.lower()
    body = json.dumps({"org_id": key, "name": "Acme"}).encode()
    created = readable(record(body, key=key.encode(), headers=[HEADERS[0], ("ce_type", b"org.create")]))
    assert isinstance(created.command, Rejected)
    # There may be one from earlier times: whoever can see it gets at it.
    assert readable(record(body, key=key.encode())).command == UpdateOrganization(org_id=UUID(key), name="Acme")


def test_unknown_fields_are_ignored() -> None:
    request = readable(record(json.dumps({"org_id": ORG, "name": "Acme", "color": "red", "s": "\\u0000"}).encode()))
    assert request.command == UpdateOrganization(org_id=UUID(ORG), name="Acme")


def test_a_broken_traceparent_is_dropped() -> None:
    zeros = b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01"
    for broken in (b"00-xyz", b"\xff", zeros, b"ff" + TRACE[2:], TRACE.upper(), TRACE + b"-more"):
        assert readable(record(headers=[*HEADERS, ("traceparent", broken)])).traceparent is None


def test_an_id_in_upper_case_is_the_same_command() -> None:
    upper = record(json.dumps({"org_id": ORG.upper(), "name": "Acme"}).encode())
    assert readable(upper).command == readable(record()).command
    assert readable(upper).digest == readable(record()).digest


def test_many_combining_marks_take_no_extra_time() -> None:
    """NFKC sorts marks, at a cost that grows with the square of their number: 64 KiB of them would take a second."""
    name = "a" + "\u0301" * 15_000 + "\u0316" * 15_000
    began = time.process_time()
    request = readable(record(json.dumps({"org_id": ORG, "name": name}, ensure_ascii=False).encode()))
    assert time.process_time() - began < 0.1
    assert isinstance(request.command, Invalid)
    assert [(error.path, error.code) for error in request.command.errors] == [("name", "too_long")]


@pytest.mark.parametrize(("timestamp", "year"), [(-1, 1970), (2**62, 9999)])
def test_a_time_outside_the_calendar_is_accepted(timestamp: int, year: int) -> None:
    assert read_broker_time(dataclasses.replace(record(), timestamp=timestamp)).year == year


def test_a_nul_after_many_values_of_a_long_name_takes_no_extra_memory() -> None:
    """A path made for each value would repeat the name: 500 MiB for one command."""
    value = json.dumps({"org_id": ORG, "x" * 30_000: [0] * 10_000, "z": "a\x00"}, separators=(",", ":")).encode()
    assert len(value) < PAYLOAD_BYTES_MAX
    tracemalloc.start()
    request = readable(record(value))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(request.command, Invalid)
    assert [error.path for error in request.command.errors] == ["z"]
    assert peak_bytes < 100 * PAYLOAD_BYTES_MAX
