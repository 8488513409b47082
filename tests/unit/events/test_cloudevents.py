"""CloudEvents over Kafka, in both modes, and what is not one."""

import json
from typing import Any
from uuid import UUID, uuid5

import pytest

from org_events.cloudevents import (
    EVENT_ID_NAMESPACE,
    CloudEvent,
    NotACloudEvent,
    command_headers,
    index_headers,
    is_structured,
    read,
    read_structured,
)

COMMAND = UUID("0192d3a0-0000-7000-8000-0000000000aa")
COMMAND_TEXT = "0192d3a0-0000-7000-8000-0000000000aa"
STRUCTURED: list[tuple[str, bytes | None]] = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
BINARY: list[tuple[str, bytes | None]] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", COMMAND_TEXT.encode()),
    ("ce_type", b"org.update"),
    ("ce_source", b"/billing"),
]


def envelope(**members: Any) -> bytes:
    event = {"specversion": "1.0", "id": COMMAND_TEXT, "type": "org.update", "source": "/billing"} | members
    return json.dumps(event).encode()


def test_the_headers_of_a_command() -> None:
    headers = command_headers(
        command_id=COMMAND,
        command_type="org.update",
        source="/billing",
        actor="åse",
        authorization="Bearer x.y.z",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    assert headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"0192d3a0-0000-7000-8000-0000000000aa"),
        ("ce_type", b"org.update"),
        ("ce_source", b"/billing"),
        ("content-type", b"application/json"),
        ("ce_actor", b"\xc3\xa5se"),
        ("authorization", b"Bearer x.y.z"),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ]
    assert [name for name, _ in command_headers(command_id=COMMAND, command_type="org.update", source="/b")] == [
        "ce_specversion",
        "ce_id",
        "ce_type",
        "ce_source",
        "content-type",
    ]


def test_binary_mode_is_read() -> None:
    headers = [*BINARY, ("ce_actor", b"\xc3\xa5se"), ("content-type", b"application/json"), ("authorization", b"\xff")]
    assert read(headers, b'{"a":1}') == CloudEvent(
        COMMAND_TEXT, "org.update", b'{"a":1}', "/billing", {"specversion": "1.0", "actor": "åse"}
    )


def test_binary_mode_takes_a_missing_value_as_empty_data() -> None:
    assert read(BINARY, None).data == b""


def test_header_names_are_case_insensitive() -> None:
    headers = [("CE_ID", COMMAND_TEXT.encode()), ("Ce_Type", b"org.update"), ("X-Other", b"1")]
    assert read(headers, b"") == CloudEvent(COMMAND_TEXT, "org.update", b"")
    assert index_headers([("Authorization", b"Bearer x"), ("AUTHORIZATION", b"Bearer x")]) == (
        {"authorization": b"Bearer x"},
        [],
    )


@pytest.mark.parametrize("name", ["ce_id", "ce_type", "ce_actor", "content-type", "authorization"])
@pytest.mark.parametrize("second", ["ce_id", "CE_ID"], ids=["exact", "other case"])
@pytest.mark.parametrize("values", [(b"a", b"b"), (b"a", None), (None, b"a"), (b"a", b"")])
def test_a_contradictory_header_is_reported(name: str, second: str, values: tuple[bytes | None, bytes | None]) -> None:
    other = name.upper() if second.isupper() else name
    assert index_headers([(name, values[0]), ("ce_source", b"/x"), (other, values[1])])[1] == [name]


def test_a_header_repeated_with_the_same_value_counts_once() -> None:
    assert index_headers([*BINARY, *BINARY]) == (dict(BINARY), [])


def test_of_any_other_repeated_header_the_last_value_counts() -> None:
    assert index_headers([("ce_source", b"/a"), ("ce_source", b"/b"), ("x", b"1"), ("x", b"2")]) == (
        {"ce_source": b"/b", "x": b"2"},
        [],
    )


def test_a_contradictory_traceparent_counts_as_absent() -> None:
    assert index_headers([("traceparent", b"00-a"), ("Traceparent", b"00-b"), ("x", b"1")]) == ({"x": b"1"}, [])


def test_a_contradictory_event_is_rejected_and_its_id_is_reported_if_it_has_one() -> None:
    with pytest.raises(NotACloudEvent, match="ce_type is repeated") as caught:
        read([*BINARY, ("ce_type", b"org.delete")], b"")
    assert caught.value.event_id == COMMAND_TEXT
    with pytest.raises(NotACloudEvent, match="ce_id is repeated") as caught:
        read([*BINARY, ("CE_ID", b"0192d3a0-0000-7000-8000-0000000000bb")], b"")
    assert caught.value.event_id is None
    with pytest.raises(NotACloudEvent, match="authorization is repeated") as caught:
        read([*STRUCTURED, ("authorization", b"a"), ("authorization", b"b")], envelope())
    assert caught.value.event_id == COMMAND_TEXT


@pytest.mark.parametrize(
    ("value", "event_id"),
    [
        (f'{{"id":"{COMMAND_TEXT}","type":"org.update","type":"org.delete"}}', COMMAND_TEXT),
        (f'{{"id":"{COMMAND_TEXT}","type":"org.update","id":"{COMMAND_TEXT}"}}', None),
    ],
)
def test_an_envelope_that_names_an_attribute_twice_is_rejected(value: str, event_id: str | None) -> None:
    with pytest.raises(NotACloudEvent, match="occurs twice") as caught:
        read_structured(value.encode())
    assert caught.value.event_id == event_id


def test_an_envelope_that_is_too_long_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    value = envelope(data="x" * 64 * 1024)
    longest = value[:-1] + b" " * (128 * 1024 - len(value)) + b"}"
    assert read_structured(longest).id == COMMAND_TEXT

    def loads(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(json, "loads", loads)
    with pytest.raises(NotACloudEvent, match="the event has 131073 bytes; at most 131072 are accepted"):
        read_structured(b" " + longest)


@pytest.mark.parametrize("name", ["ce_id", "ce_type"])
@pytest.mark.parametrize("content", [None, b""])
def test_an_id_or_type_without_a_value_is_missing(name: str, content: bytes | None) -> None:
    with pytest.raises(NotACloudEvent, match=f"the attribute {name[3:]} is missing"):
        read([*(each for each in BINARY if each[0] != name), (name, content)], b"")


def test_null_values_of_other_headers_are_accepted() -> None:
    assert read([*BINARY, ("ce_actor", None), ("content-type", None), ("x", None)], b"").attributes == {
        "specversion": "1.0"
    }


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\xc3(", b"\xed\xa0\x80"])
def test_an_attribute_that_is_not_utf8_is_rejected_but_the_id_is_reported(content: bytes) -> None:
    with pytest.raises(NotACloudEvent, match="header ce_actor is not UTF-8") as caught:
        read([("ce_actor", content), *BINARY], b"")
    assert caught.value.event_id == COMMAND_TEXT


def test_an_id_that_is_not_utf8_is_not_reported() -> None:
    with pytest.raises(NotACloudEvent) as caught:
        read([*BINARY, ("ce_id", b"\xff")], b"")
    assert caught.value.event_id is None


@pytest.mark.parametrize("content", [b"a\0b", b"a\nb", b"a\x7fb", "a\u0085b".encode()])
def test_a_control_character_in_an_attribute_is_rejected(content: bytes) -> None:
    with pytest.raises(NotACloudEvent, match="control character") as caught:
        read([*BINARY, ("ce_actor", content)], b"")
    assert caught.value.event_id == COMMAND_TEXT


@pytest.mark.parametrize(
    ("content_type", "structured"),
    [
        (None, False),
        (b"", False),
        (b"application/json", False),
        (b"application/cloudevents+json", True),
        (b"Application/CloudEvents+JSON; charset=utf-8", True),
        (b"application/cloudevents+json;charset=utf-8", True),
        (b"application/cloudevents-batch+json", False),
        (b"application/cloudevents+jsonl", False),
        (b"\xff", False),
    ],
)
def test_the_content_type_determines_the_mode(content_type: bytes | None, structured: bool) -> None:
    assert is_structured(content_type) is structured


def test_structured_mode_is_read_with_data() -> None:
    value = envelope(
        data={"org_id": "x", "name": "Ærø", "n": 12345678901234567890}, actor="åse", orgversion=7, beta=True
    )
    assert read(STRUCTURED, value) == CloudEvent(
        COMMAND_TEXT,
        "org.update",
        '{"org_id":"x","name":"Ærø","n":12345678901234567890}'.encode(),
        "/billing",
        {"specversion": "1.0", "actor": "åse", "orgversion": "7", "beta": "true"},
    )


def test_structured_mode_is_read_with_base64_data() -> None:
    assert read(STRUCTURED, envelope(data_base64="eyJhIjoxfQ==")).data == b'{"a":1}'


def test_structured_mode_ignores_binary_headers() -> None:
    assert read([*BINARY, *STRUCTURED, ("ce_type", b"org.delete")], envelope()).type == "org.update"


def test_null_members_count_as_absent() -> None:
    event = read_structured(envelope(data=None, data_base64=None, actor=None))
    assert (event.data, event.attributes) == (b"", {"specversion": "1.0"})


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff",
        '{"id": "x", "type": "y"}'.encode("utf-16"),
        b"1" * 5_000,
    ],
)
def test_an_envelope_must_be_a_json_object_in_utf8(value: bytes | None) -> None:
    with pytest.raises(NotACloudEvent, match="must be a JSON object"):
        read_structured(value)


@pytest.mark.parametrize("value", [b"[" * 100_000, b'{"data":' * 10_000])
def test_an_envelope_that_nests_too_deep_is_rejected_with_a_reason(value: bytes) -> None:
    with pytest.raises(NotACloudEvent, match="nested too deeply"):
        read_structured(value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"type": None}, "the attribute type is missing"),
        ({"type": ""}, "the attribute type is missing"),
        ({"type": 5.5}, "the attribute 'type' must be text, an integer or a boolean"),
        ({"actor": {"id": 1}}, "the attribute 'actor' must be text, an integer or a boolean"),
        ({"actor": "a\0"}, "the attribute 'actor' contains a control character"),
        ({"actor": "\ud800"}, "the attribute 'actor' contains a control character"),
        ({"data_base64": "%%%"}, "data_base64 is not Base64"),
        ({"data_base64": "ø"}, "data_base64 is not Base64"),
        ({"data_base64": 5}, "data_base64 is not Base64"),
        ({"data": {}, "data_base64": ""}, "data and data_base64 must not both"),
    ],
)
def test_a_wrong_envelope_is_rejected_but_the_id_is_reported(members: dict[str, Any], message: str) -> None:
    with pytest.raises(NotACloudEvent, match=message) as caught:
        read_structured(envelope(**members))
    assert caught.value.event_id == COMMAND_TEXT


@pytest.mark.parametrize("event_id", [None, "", {}, 1.5])
def test_an_envelope_without_an_id_reports_none(event_id: Any) -> None:
    with pytest.raises(NotACloudEvent) as caught:
        read_structured(envelope(id=event_id))
    assert caught.value.event_id is None


def test_a_lone_surrogate_in_data_gives_bytes_that_are_not_utf8() -> None:
    data = read_structured(envelope(data={"name": "\ud800"})).data
    with pytest.raises(UnicodeDecodeError):
        data.decode()


def test_an_events_id_is_the_same_at_every_send() -> None:
    assert uuid5(EVENT_ID_NAMESPACE, "1") == UUID("a32e0765-92a5-515c-9736-5d1b41fcaebc")
