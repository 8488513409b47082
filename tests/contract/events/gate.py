"""Whether a contract may follow the released ones: each of them, not only the last.

Compared are AsyncAPI documents, which hold all that is promised on Kafka: topics, keys, headers, bodies. What the
service publishes must be readable by subscribers of every release, and what is in the topics from every release must
be readable by new subscribers: full compatibility. What the service receives must be accepted from publishers of every
release; it may accept more. A breach says what, where, which side, which known programs, and what to do instead.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from org_events.testing.usage import WHOLE, Manifest, read_manifest, touches
from tests.contract.events.compatibility import NEVER_THERE, Misfit, Side, find_gone, find_misfits

Document = Mapping[str, Any]
Part = Literal["topic", "message", "key", "header", "body"]

EVENTS: Final = Path(__file__).parents[3] / "events"
RELEASED: Final = EVENTS / "released"
USAGE: Final = EVENTS / "usage"
ACCEPTED: Final = RELEASED / "accepted-breaches.json"
"""Breaches that were meant, by their first lines, and why they do no harm."""

_TYPED: Final = ("commands", "events")
"""Channels whose readers go by a record's type, and skip or reject what they don't know."""
_SIDES: Final = {
    "old readers": "subscribers built with {} don't expect that",
    "new readers": "the topics hold it, as {} wrote it, and subscribers built with the new contract don't expect that",
    "old writers": "publishers built with {} send that, and would be rejected or not understood",
    "both": "subscribers and publishers built with {} rely on it",
}
_INSTEAD: Final = {
    ("gone", "published"): "go on writing it; put what replaces it beside it",
    ("gone", "accepted"): "go on reading it; put what replaces it beside it",
    ("missing", "published"): "go on writing it in every message, and don't require what old messages don't have",
    ("missing", "accepted"): "make it optional, with the meaning that its absence has today",
    ("", "published"): "leave it as it is, and put the new value in a member of its own, or raise the schema's version",
    ("", "accepted"): "go on accepting what was accepted; reject it as a rule of the service, if it must be, with 422",
}


@dataclass(frozen=True, slots=True)
class Breach:
    """What a contract breaks of a released one."""

    channel: str
    part: Part
    path: str
    kind: str
    what: str
    side: str
    accepted: bool
    messages: tuple[str, ...] = ()
    releases: tuple[str, ...] = ()

    def first_line(self) -> str:
        """What and where."""
        if self.part == "topic":
            return f"{self.channel}: {self.path} {self.what}"
        named = {"body": self.path or "the value", "header": f"the header {self.path}", "key": "the key"}
        inside = "in the body of" if self.part == "body" else "of"
        return f"{self.channel}: {named.get(self.part, self.path)} {inside} {', '.join(self.messages)} {self.what}"

    def known(self, usage: Iterable[Manifest]) -> list[str]:
        """Who breaks, of those whose manifest is here: name, and what of theirs."""
        found = [(manifest["program"], self._uses(manifest)) for manifest in usage]
        return [f"{program} ({'; '.join(uses)})" for program, uses in found if uses]

    def explain(self, usage: Iterable[Manifest]) -> str:
        """The whole story."""
        names = "; ".join(self.known(usage)) or "none that has sent its usage manifest, which not all do"
        instead = _INSTEAD.get((self.kind, self._direction())) or _INSTEAD["", self._direction()]
        breaks = _SIDES[self.side].format(", ".join(self.releases))
        return f"{self.first_line()}\n  breaks:  {breaks}\n  known:   {names}\n  instead: {instead}"

    def _direction(self) -> str:
        return "accepted" if self.accepted else "published"

    def _uses(self, manifest: Manifest) -> list[str]:
        return [use for message in self.messages for use in self._uses_of(manifest, message)]

    def _uses_of(self, manifest: Manifest, message: str) -> list[str]:
        reads, sends = manifest["reads"].get(message), manifest["sends"].get(message)
        if reads is None and sends is None:
            return []
        if self.part == "header" and reads is not None:
            return [f"reads {self.path} of {message}"] if {self.path, WHOLE} & {*reads["headers"]} else []
        if self.part == "body" and self.what != NEVER_THERE:
            verb, paths = ("sends", sends) if reads is None else ("reads", reads["body"])
            return [f"{verb} {path} of {message}" for path in touches(paths or (), self.path)]
        return [f"{'sends' if reads is None else 'reads'} {message}"]


class _Message(NamedTuple):
    """One message of a document, and where it is."""

    channel: str
    name: str
    content: Mapping[str, Any]
    document: Document

    def side(self, part: str) -> Side:
        return Side(self.content[part], self.document["components"]["schemas"])


def find_breaches(released: Mapping[str, Document], new: Document) -> list[Breach]:
    """What `new` breaks of any release; one breach of several messages or releases is one."""
    found: dict[Breach, tuple[dict[str, None], dict[str, None]]] = {}
    for release, old in released.items():
        for breach in _compare(old, new):
            messages, releases = found.setdefault(replace(breach, messages=()), ({}, {}))
            messages.update(dict.fromkeys(breach.messages))
            releases[release] = None
    return [
        replace(breach, messages=tuple(messages), releases=tuple(releases))
        for breach, (messages, releases) in found.items()
    ]


def load_released() -> dict[str, Document]:
    """The documents of every release by its version."""
    files = sorted(RELEASED.glob("*/asyncapi.json"))
    return {file.parent.name: json.loads(file.read_text(encoding="utf-8")) for file in files}


def load_usage() -> list[Manifest]:
    """What programs reported that they use."""
    return [read_manifest(file.read_text(encoding="utf-8")) for file in sorted(USAGE.glob("*.json"))]


def _compare(old: Document, new: Document) -> Iterator[Breach]:
    received = {
        operation["channel"]["$ref"].rpartition("/")[2]
        for operation in old["operations"].values()
        if operation["action"] == "receive"
    }
    for name, channel in old["channels"].items():
        accepted = name in received
        after = new["channels"].get(name)
        if after is None or after["address"] != channel["address"]:
            now = "is gone" if after is None else f"is now {after['address']}"
            yield Breach(
                channel["address"], "topic", "the topic", "gone", now, "both", accepted, (*channel["messages"],)
            )
            continue
        for path, what in _compare_topics(channel["bindings"]["kafka"], after["bindings"]["kafka"]):
            yield Breach(channel["address"], "topic", path, "topic", what, "both", accepted, (*channel["messages"],))
        yield from _compare_messages(old, new, name, accepted=accepted)


def _compare_topics(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Path, and what is the matter."""
    was, now = old["topicConfiguration"], new["topicConfiguration"]
    for setting in ("cleanup.policy", "message.timestamp.type"):
        if was.get(setting) != now.get(setting):
            yield setting, f"is {now.get(setting)}, was {was.get(setting)}"
    if new["partitions"] < old["partitions"]:
        yield "partitions", f"are {new['partitions']}, were {old['partitions']}"
    for setting in ("retention.ms", "retention.bytes", "delete.retention.ms", "max.message.bytes"):
        before, after = was.get(setting, -1), now.get(setting, -1)
        if after != -1 and (before == -1 or after < before):
            yield setting, f"is {after}, was {before}"


def _compare_messages(old: Document, new: Document, channel: str, *, accepted: bool) -> Iterator[Breach]:
    address = old["channels"][channel]["address"]
    before, after = _messages(old, channel), _messages(new, channel)
    side = "old writers" if accepted else "old readers"
    for name, was in before.items():
        if name not in after:
            yield Breach(address, "message", "the type", "gone", "is gone", side, accepted, (name,))
            continue
        yield from _compare_message(was, after[name], accepted=accepted)
    if channel not in _TYPED:
        for name in after.keys() - before.keys():
            what = "is new, and nothing in a record tells readers so"
            yield Breach(address, "message", "the message", "type", what, side, accepted, (name,))


def _messages(document: Document, channel: str) -> dict[str, _Message]:
    """The messages of a channel by their names."""
    address = document["channels"][channel]["address"]
    found = document["components"]["messages"]
    return {name: _Message(address, name, found[name], document) for name in document["channels"][channel]["messages"]}


def _compare_message(old: _Message, new: _Message, *, accepted: bool) -> Iterator[Breach]:
    side = "old writers" if accepted else "old readers"
    keys = [_without_texts(each.content["bindings"]["kafka"]["key"]) for each in (old, new)]
    if keys[0] != keys[1]:
        what = f"is {json.dumps(keys[1])}, was {json.dumps(keys[0])}"
        yield Breach(old.channel, "key", "", "key", what, side, accepted, (old.name,))
    for member in ("contentType", "correlationId"):
        if old.content.get(member) != new.content.get(member):
            yield Breach(old.channel, "message", member, "value", "is another", side, accepted, (old.name,))
    parts: tuple[tuple[Part, str], ...] = (("header", "headers"), ("body", "payload"))
    for part, name in parts:
        for how, misfit in _compare_sides(old.side(name), new.side(name), accepted=accepted):
            yield Breach(old.channel, part, misfit.path, misfit.kind, misfit.what, how, accepted, (old.name,))


def _compare_sides(old: Side, new: Side, *, accepted: bool) -> Iterator[tuple[str, Misfit]]:
    """Breaches with the side that they break."""
    gone = [*find_gone(old, new)]
    yield from (("old writers" if accepted else "old readers", misfit) for misfit in gone)
    left_out = {misfit.path for misfit in gone}
    published = [("old readers", new, old), ("new readers", old, new)]
    for side, writer, reader in [("old writers", old, new)] if accepted else published:
        yield from ((side, misfit) for misfit in find_misfits(writer, reader) if misfit.path not in left_out)


def _without_texts(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: content for name, content in schema.items() if name != "description"}
