"""Records against the committed AsyncAPI document."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema

FILE = Path(__file__).parents[3] / "docs" / "asyncapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))


def check(message: str, headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> None:
    """Check a record against a message: every header is described, none is missing, the body fits its schema.

    Raises:
        AssertionError, jsonschema.ValidationError: It is not what the document says.
    """
    described = DOCUMENT["components"]["messages"][message]
    texts = {name: (content or b"").decode() for name, content in headers}
    undescribed = texts.keys() - described["headers"]["properties"].keys()
    assert not undescribed, f"{message} has headers the document doesn't know: {undescribed}"
    formats = jsonschema.Draft7Validator.FORMAT_CHECKER
    jsonschema.validate(texts, described["headers"], format_checker=formats)
    body = None if value is None else json.loads(value)
    jsonschema.validate(body, DOCUMENT | described["payload"], format_checker=formats)
