"""The CloudEvents SDK of Python reads what the service writes, and the service what the SDK writes, in both modes.

The SDK is another implementation of the same binding, so neither side can be wrong in the same way.
"""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from org_events import Topics, cloudevents
from org_events.testing import Message, golden_messages, on_topic
from org_service.domain.requests import Request
from org_service.wire import commands

pytestmark = pytest.mark.contract

TOPICS = Topics()
FORMAT = JSONFormat()
PUBLISHED = [*on_topic(TOPICS.events, golden_messages()), *on_topic(TOPICS.results, golden_messages())]
COMMANDS = on_topic(TOPICS.commands, golden_messages())
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read_by_sdk(message: Message) -> Any:
    return sdk.from_binary(sdk.KafkaMessage(dict(message.headers), message.key, message.value or b""), FORMAT)


def write_by_sdk(message: Message, mode: Any) -> sdk.KafkaMessage:
    """The command of a golden record, made by the SDK, as a publisher would."""
    given = message.header
    event = CloudEvent(
        {
            "id": given["ce_id"],
            "type": given["ce_type"],
            "source": given["ce_source"],
            "specversion": "1.0",
            "datacontenttype": "application/json",
            "actor": given["ce_actor"],
            "traceparent": TRACE,
        },
        message.body,
    )
    return mode(event, FORMAT, key_mapper=lambda _: message.key)


def read_by_service(key: Any, value: bytes | None, headers: Any) -> Request:
    record: Any = SimpleNamespace(topic=TOPICS.commands, partition=0, offset=0, key=key, value=value, headers=headers)
    request = commands.read(record)
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize("message", PUBLISHED, ids=lambda message: f"{message.message}-{message.header['ce_id'][:8]}")
def test_the_sdk_reads_what_the_service_publishes_and_writes_it_again_in_both_modes(message: Message) -> None:
    event = read_by_sdk(message)
    expected = {name.removeprefix("ce_"): text for name, text in message.header.items() if name.startswith("ce_")}
    assert {name: event.get_attributes().get(name) for name in expected if name != "time"} == {
        name: text for name, text in expected.items() if name != "time"
    }
    assert event.get_time().isoformat().replace("+00:00", "Z") == expected["time"]
    assert event.get_data() == message.body
    for mode in (sdk.to_binary, sdk.to_structured):
        written = mode(event, FORMAT)
        again = cloudevents.read(list(written.headers.items()), written.value)
        assert (again.id, again.type, again.source) == (expected["id"], expected["type"], expected["source"])
        assert json.loads(again.data) == message.body
        assert expected.items() - {("id", again.id), ("type", again.type), ("source", again.source)} <= (
            again.attributes.items()
        )


@pytest.mark.parametrize("mode", [sdk.to_binary, sdk.to_structured], ids=["binary", "structured"])
def test_the_service_reads_what_the_sdk_writes_as_the_same_command(mode: Any) -> None:
    for message in COMMANDS:
        theirs = write_by_sdk(message, mode)
        read = read_by_service(theirs.key, theirs.value, list(theirs.headers.items()))
        ours = read_by_service(message.key, message.value, message.headers)
        assert (read.command_id, read.command, read.digest) == (ours.command_id, ours.command, ours.digest)
        assert (read.actor, read.traceparent) == ("ann", TRACE)
