"""`docs/contract.html`: topics, messages, headers, bodies and examples on one page, for people.

One file without scripts and without anything to fetch, so that it opens from a disk, a mail or a page of a build. It is
made from the AsyncAPI document and the golden messages, so it can't say anything else.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from org_events import asyncapi

_TEMPLATE: Final = "contract_page.html"
_RULES: Final = ("format", "pattern", "minLength", "maxLength", "minimum", "maximum")
_LINK: Final = Markup('<a href="#{0}">{0}</a>')

_Json = Mapping[str, Any]


def make_contract_page(golden: str) -> str:
    """The text of the page.

    Args:
        golden: The file of golden messages; the first one of each type is its example.
    """
    document = asyncapi.make_document()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["ticks"] = _mark_code
    page = environment.get_template(_TEMPLATE).render(
        info=document["info"],
        channels=[_describe_channel(document, name) for name in document["channels"]],
        schemas={name: _describe_schema(schema) for name, schema in document["components"]["schemas"].items()},
        examples=_pick_examples(json.loads(golden)["messages"]),
    )
    return page + "\n"


def _describe_channel(document: _Json, name: str) -> _Json:
    channel = document["channels"][name]
    reference = {"$ref": f"#/channels/{name}"}
    [operation] = [each for each in document["operations"].values() if each["channel"] == reference]
    messages = [document["components"]["messages"][each] for each in channel["messages"]]
    kafka = channel["bindings"]["kafka"]
    return {
        "name": channel["address"],
        "received": operation["action"] == "receive",
        "summary": operation["summary"],
        "key": messages[0]["bindings"]["kafka"]["key"],
        "settings": {"partitions": kafka["partitions"]} | kafka["topicConfiguration"],
        "messages": [_describe_message(message) for message in messages],
    }


def _describe_message(message: _Json) -> _Json:
    headers = message["headers"]
    return {
        "name": message["name"],
        "summary": message["summary"],
        "headers": list(_describe_members(headers)),
        "body": _type(message["payload"]),
    }


def _describe_schema(schema: _Json) -> _Json:
    return {
        "description": schema.get("description", ""),
        "values": schema.get("enum", ()),
        "members": list(_describe_members(schema)),
    }


def _describe_members(schema: _Json) -> Iterator[tuple[str, Markup, bool, str]]:
    """Name, type, whether it is always there, description."""
    required = schema.get("required", ())
    for name, member in schema.get("properties", {}).items():
        yield name, _type(member), name in required, member.get("description", "")


def _type(schema: _Json) -> Markup:
    if "$ref" in schema:
        return _LINK.format(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return Markup(" or ").join(_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return Markup("<code>{}</code>").format(schema["const"])
    if schema.get("type") == "array":
        return Markup("array of {}").format(_type(schema["items"]))
    rules = [f"{rule} {schema[rule]}" for rule in _RULES if rule in schema]
    return Markup("{}").format(", ".join([schema["type"], *rules]))


def _mark_code(text: str) -> Markup:
    """What stands between backticks is code."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", escape(text)))  # noqa: S704 - it is escaped


def _pick_examples(messages: list[dict[str, Any]]) -> dict[str, str]:
    """The value of the first message of each type, laid out; nothing for a tombstone."""
    found: dict[str, str] = {}
    for message in messages:
        if message["body"] is not None:
            found.setdefault(message["message"], json.dumps(message["body"], indent=2, ensure_ascii=False))
    return found
