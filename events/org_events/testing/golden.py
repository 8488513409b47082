"""The golden messages: each type of message, as each release of the service and its publishers wrote it, byte for byte.

`LATEST` tells one story of four organizations on `orgs.events` and `orgs.state`; `fold` is where it ends. The files
beside this one are data for other languages as well: the value of a message is the shortest form of its `body`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final
from uuid import UUID

from org_events.organization import Organization
from org_events.topics import Topics

LATEST: Final = "latest"
"""The release that is installed."""
_TOPICS: Final = Topics()


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A record on Kafka; its attributes have the names that aiokafka's `ConsumerRecord` gives them.

    Attributes:
        message: Its name in the contract: the `ce_type`, or `organization`, `organization-deleted`, `membership`, …
        value: None is a tombstone.
    """

    topic: str
    message: str
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    partition: int = field(default=0, compare=False)
    offset: int = field(default=0, compare=False)
    timestamp: int = field(default=0, compare=False)

    @property
    def body(self) -> Any:
        """The JSON of the value, parsed; None of a tombstone."""
        return None if self.value is None else json.loads(self.value)

    @property
    def header(self) -> Mapping[str, str]:
        """The headers by name, as text."""
        return {name: content.decode() for name, content in self.headers}


def releases() -> list[str]:
    """The releases whose messages are here, and `LATEST`."""
    return sorted(file.name.removesuffix(".json") for file in _folder().iterdir() if file.name.endswith(".json"))


@cache
def golden_messages(release: str = LATEST) -> tuple[Message, ...]:
    """Every message of a release, in the order in which it is published.

    Raises:
        FileNotFoundError: No such release; see `releases`.
    """
    document = json.loads((_folder() / f"{release}.json").read_text(encoding="utf-8"))
    return tuple(_message(each) for each in document["messages"])


def on_topic(topic: str, messages: Iterable[Message]) -> list[Message]:
    """Those of one topic."""
    return [message for message in messages if message.topic == topic]


def fold(messages: Iterable[Message]) -> dict[UUID, Organization]:
    """The organizations that are there after these messages of `orgs.events`, each read once and in order."""
    found: dict[UUID, Organization] = {}
    for message in on_topic(_TOPICS.events, messages):
        org_id, after = UUID(message.key.decode()), message.body["after"]
        if after is None:
            found.pop(org_id, None)
        else:
            found[org_id] = Organization.model_validate(after)
    return found


def write_value(body: Any) -> bytes | None:
    """The value of a message: the shortest form of its JSON; None is a tombstone."""
    return None if body is None else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _message(described: Mapping[str, Any]) -> Message:
    return Message(
        topic=described["topic"],
        message=described["message"],
        key=described["key"].encode(),
        value=write_value(described["body"]),
        headers=tuple((name, content.encode()) for name, content in described["headers"].items()),
    )


def _folder() -> Traversable:
    return files("org_events.testing") / "golden"
