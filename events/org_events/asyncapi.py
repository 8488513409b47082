"""The AsyncAPI 3.0 document of the contract, made from models and topics.

It is written from the service's side: it receives what others publish and sends what others subscribe to. Topics, keys,
headers and bodies are the same for a client.
"""

from importlib.metadata import version
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from org_events.cloudevents import EVENT_SCHEMA, JSON_CONTENT, RESULT_SCHEMA, SOURCE
from org_events.commands import COMMANDS
from org_events.events import EventType, OrganizationEvent
from org_events.organization import Organization
from org_events.reference import Membership, Partnership, Reference, Staff
from org_events.results import RESULT_TYPE, Result
from org_events.schemas import MODELS, Generator, choose_mode
from org_events.topics import Topics, TopicSpec

_BINDING: Final = "0.5.0"
"""Version of AsyncAPI's Kafka bindings."""
_DESCRIPTION: Final = (
    "CloudEvents 1.0 over Kafka in binary mode: attributes are headers `ce_*`, the value is JSON. Commands are also "
    "accepted in structured mode. Subscribers read with isolation level read_committed. Reference data (memberships, "
    "partnerships, staff) are plain JSON on compacted topics; their headers are ignored."
)
_STATE: Final = "organization"
_TOMBSTONE: Final = "organization-deleted"

_Json = dict[str, Any]

_UUID: Final[_Json] = {"type": "string", "format": "uuid"}
_NUMBER: Final[_Json] = {"type": "string", "pattern": "^[0-9]+$"}
_TIME: Final[_Json] = {"type": "string", "format": "date-time"}


def _described(schema: _Json, description: str) -> _Json:
    return schema | {"description": description}


def _key(schema: _Json, fields: str, description: str) -> _Json:
    """A key, and as data what a program needs of it: the members it is made of, and who decides its partition."""
    return schema | {"description": description, "x-fields": fields.split(":"), "x-partitioner": "murmur2"}


_KEY: Final = _key(_UUID, "org_id", "The organization id, 36 lower-case characters; default (murmur2) partitioner")
_RESULT_KEY: Final = _key(_UUID, "org_id", "The organization id; the command id if no organization can be read")
_CONTENT_TYPE: Final[_Json] = {"type": "string", "const": JSON_CONTENT.decode()}
_SPECVERSION: Final[_Json] = {"type": "string", "const": "1.0"}
_TRACEPARENT: Final[_Json] = {"type": "string", "description": "W3C trace context, copied from the command"}
_VERSION: Final = _described(_NUMBER, "The organization's version after the change")
_POSITION: Final = _described(_NUMBER, "Position in the journal")
_COMMAND_ID: Final = _described(_UUID, "The command id")


def _headers(required: _Json, optional: _Json) -> _Json:
    return {"type": "object", "required": list(required), "properties": required | optional}


def _command_headers(command_type: str) -> _Json:
    return _headers(
        {
            "ce_specversion": _SPECVERSION,
            "ce_id": _described(_UUID, "The command id, chosen by the publisher; the same on every retry"),
            "ce_type": {"type": "string", "const": command_type},
            "ce_source": {"type": "string", "format": "uri-reference", "description": "Names the publishing service"},
        },
        {
            "content-type": _CONTENT_TYPE,
            "authorization": {"type": "string", "description": "Bearer and a JWT that identifies the actor"},
            "ce_actor": {
                "type": "string",
                "description": "The actor, used only where the broker trusts its publishers",
            },
            "traceparent": {"type": "string", "description": "W3C trace context, copied to the event and the result"},
        },
    )


def _event_headers(event_type: str) -> _Json:
    return _headers(
        {
            "ce_specversion": _SPECVERSION,
            "ce_id": _described(_UUID, "Derived from the position: the same each time it is sent"),
            "ce_type": {"type": "string", "const": event_type},
            "ce_source": {"type": "string", "const": SOURCE},
            "ce_subject": _described(_UUID, "The organization id"),
            "ce_time": _described(_TIME, "When the change was made"),
            "ce_dataschema": {"type": "string", "const": EVENT_SCHEMA},
            "content-type": _CONTENT_TYPE,
            "ce_orgversion": _VERSION,
            "ce_position": _POSITION,
            "ce_commandid": _COMMAND_ID,
        },
        {
            "ce_actor": {"type": "string", "description": "Who made the change"},
            "ce_replayrun": _described(_UUID, "The run of an operator that sent the event again, with the same ce_id"),
            "traceparent": _TRACEPARENT,
        },
    )


_RESULT_HEADERS: Final = _headers(
    {
        "ce_specversion": _SPECVERSION,
        "ce_id": _described(_UUID, "Of the result"),
        "ce_type": {"type": "string", "const": RESULT_TYPE},
        "ce_source": {"type": "string", "const": SOURCE},
        "ce_time": _described(_TIME, "When the outcome was produced"),
        "ce_dataschema": {"type": "string", "const": RESULT_SCHEMA},
        "content-type": _CONTENT_TYPE,
        "ce_commandid": _COMMAND_ID,
    },
    {
        "ce_subject": _described(_UUID, "The organization id, if it can be read"),
        "ce_position": _described(_NUMBER, "Position in the journal, if the outcome is journaled"),
        "traceparent": _TRACEPARENT,
    },
)
_STATE_HEADERS: Final = _headers({"ce_orgversion": _VERSION, "ce_position": _POSITION}, {"content-type": _CONTENT_TYPE})


def _message(
    name: str, summary: str, headers: _Json, payload: _Json, *, key: _Json = _KEY, correlated_by: str | None = None
) -> _Json:
    message: _Json = {
        "name": name,
        "title": name,
        "summary": summary,
        "contentType": JSON_CONTENT.decode(),
        "headers": headers,
        "payload": payload,
        "bindings": {"kafka": {"key": key, "bindingVersion": _BINDING}},
    }
    if correlated_by is not None:
        message["correlationId"] = {
            "description": "The command id links a command and its result",
            "location": f"$message.header#/{correlated_by}",
        }
    return message


_REFERENCE: Final[dict[str, tuple[type[Reference], str, str]]] = {
    "memberships": (Membership, "the user no longer belongs to the organization", "user_id:org_id"),
    "partnerships": (Partnership, "the organization no longer serves the other", "partner_org_id:org_id"),
    "staff": (Staff, "the user no longer works for the platform", "user_id"),
}
"""By channel: the model, what a tombstone means, and the key."""


def _reference_messages(model: type[Reference], tombstone: str, key: str) -> dict[str, _Json]:
    """A fact, and the tombstone that removes it; both have the same key."""
    described = _key(
        {"type": "string"},
        key,
        f"{key} as in the value, ids in 36 lower-case characters; default (murmur2) partitioner",
    )
    name = model.__name__.lower()
    nothing = _headers({}, {})
    return {
        name: _message(name, _first_line(model), nothing, _schema_of(model), key=described),
        f"{name}-removed": _message(
            f"{name}-removed", f"A tombstone: {tombstone}", nothing, {"type": "null"}, key=described
        ),
    }


def _schema_of(model: type) -> _Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _first_line(model: type) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def _messages() -> dict[str, dict[str, _Json]]:
    """Every message by channel and name."""
    event = _schema_of(OrganizationEvent)
    return {
        "commands": {
            name: _message(name, _first_line(model), _command_headers(name), _schema_of(model), correlated_by="ce_id")
            for name, model in COMMANDS.items()
        },
        "results": {
            RESULT_TYPE: _message(
                RESULT_TYPE,
                _first_line(Result),
                _RESULT_HEADERS,
                _schema_of(Result),
                key=_RESULT_KEY,
                correlated_by="ce_commandid",
            )
        },
        "events": {
            name.value: _message(name.value, _first_line(OrganizationEvent), _event_headers(name.value), event)
            for name in EventType
        },
        "state": {
            _STATE: _message(_STATE, "The whole organization", _STATE_HEADERS, _schema_of(Organization)),
            _TOMBSTONE: _message(
                _TOMBSTONE, "A tombstone: the organization is deleted", _STATE_HEADERS, {"type": "null"}
            ),
        },
        **{channel: _reference_messages(*held) for channel, held in _REFERENCE.items()},
    }


def _channel(spec: TopicSpec, messages: dict[str, _Json]) -> _Json:
    config: _Json = dict(spec.config)
    config["cleanup.policy"] = [config["cleanup.policy"]]
    for number in ("retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes"):
        if number in config:
            config[number] = int(config[number])
    return {
        "address": spec.name,
        "description": f"Holds {spec.holds}.",
        "messages": {message: {"$ref": f"#/components/messages/{message}"} for message in messages},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "topicConfiguration": config,
                "bindingVersion": _BINDING,
            }
        },
    }


def _operation(action: str, channel: str, summary: str, messages: dict[str, _Json]) -> _Json:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
    }


def make_document() -> _Json:
    """The whole document, for topics without a prefix."""
    topics = Topics()
    specs = {spec.name: spec for spec in topics.specs()}
    messages = _messages()
    names = {"commands": topics.commands, "results": topics.results, "events": topics.events, "state": topics.state}
    names |= {"memberships": topics.memberships, "partnerships": topics.partnerships, "staff": topics.staff}
    _, schemas = models_json_schema(
        [(model, choose_mode(model)) for _, model in MODELS.values()],
        ref_template="#/components/schemas/{model}",
        schema_generator=Generator,
    )
    receive = _operation("receive", "commands", "Decides each command once", messages["commands"])
    receive["reply"] = {
        "channel": {"$ref": "#/channels/results"},
        "messages": [{"$ref": f"#/channels/results/messages/{RESULT_TYPE}"}],
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Organizations",
            "version": version("org-events"),
            "description": _DESCRIPTION,
        },
        "defaultContentType": JSON_CONTENT.decode(),
        "channels": {name: _channel(specs[topic], messages[name]) for name, topic in names.items()},
        "operations": {
            "receiveCommands": receive,
            "sendResults": _operation("send", "results", "The outcome of every command", messages["results"]),
            "sendEvents": _operation("send", "events", "Every change, exactly once, in order", messages["events"]),
            "sendState": _operation("send", "state", "The latest version of each organization", messages["state"]),
            "receiveMemberships": _operation(
                "receive",
                "memberships",
                "Who belongs where: the latest record of each key counts",
                messages["memberships"],
            ),
            "receivePartnerships": _operation(
                "receive",
                "partnerships",
                "Who serves whom: the latest record of each key counts",
                messages["partnerships"],
            ),
            "receiveStaff": _operation(
                "receive",
                "staff",
                "Who works for the platform: the latest record of each key counts",
                messages["staff"],
            ),
        },
        "components": {
            "messages": {name: message for channel in messages.values() for name, message in channel.items()},
            "schemas": schemas["$defs"],
        },
    }
