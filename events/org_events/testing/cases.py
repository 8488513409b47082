"""What happens to subscribers, played with the golden messages. After each case the organizations are the same."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, cast

from org_events.events import EventType
from org_events.testing.golden import LATEST, Message, golden_messages, on_topic, write_value
from org_events.topics import Topics

_TOPICS: Final = Topics()
_SUSPENSIONS_MAX: Final = 8
"""How deep into a handler the process ends: as many awaits as a transaction of a few statements has."""
_BATCH: Final = 5
_AWAY_FROM: Final = 6
_AWAY_UNTIL: Final = 12
"""Positions: what lies between them a subscriber that was away learns from the state alone."""
_NEVER_SEEN: Final = "0a000000-0000-7000-8000-000000000009"

_SKIP: Final = "skip a version that is not higher than the one you keep"
_OLD_OVER_NEW: Final = f"it applies an old change over a newer one: {_SKIP}"


class Harness(Protocol):
    """What a case does with a handler."""

    async def deliver(self, messages: Iterable[Message]) -> None:
        """Let it have these."""
        ...

    async def deliver_half(self, message: Message, suspensions: int) -> bool:
        """End the process while the handler waits for the `suspensions`-th time; whether it was done before."""
        ...

    def recreate_topics(self) -> None:
        """Let offsets begin again."""
        ...


Deliver = Callable[[Harness], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that happens.

    Attributes:
        name: Stable, to name it in a test.
        what: What happens, after "when".
        usually: What a handler that fails usually does wrong, and what it should do.
        deliver: Makes it happen.
    """

    name: str
    what: str
    usually: str
    deliver: Deliver


def events() -> list[Message]:
    """The golden events, in their order."""
    return on_topic(_TOPICS.events, golden_messages(LATEST))


def state(until: int, *, compacted: bool) -> list[Message]:
    """The records of `orgs.state` up to a position; compacted, the last one of each organization."""
    found = [
        message
        for message in on_topic(_TOPICS.state, golden_messages(LATEST))
        if int(message.header["ce_position"]) <= until
    ]
    return list({message.key: message for message in found}.values()) if compacted else found


async def _in_order(harness: Harness) -> None:
    await harness.deliver(events())


async def _duplicates(harness: Harness) -> None:
    for event in events():
        await harness.deliver([event, event])


async def _half_done(harness: Harness) -> None:
    for event in events():
        for suspensions in range(1, _SUSPENSIONS_MAX + 1):
            if await harness.deliver_half(event, suspensions):
                break
        await harness.deliver([event])


async def _redelivery(harness: Harness) -> None:
    known = events()
    for start in range(0, len(known), _BATCH):
        batch = known[start : start + _BATCH]
        await harness.deliver([*batch, *batch])


async def _full_replay(harness: Harness) -> None:
    await harness.deliver([*events(), *events()])


async def _partial_replay(harness: Harness) -> None:
    known = events()
    erased = {event.key for event in known if event.message == EventType.ERASED}
    run = ("ce_replayrun", b"0d000000-0000-7000-8000-000000000001")
    again = [replace(event, headers=(*event.headers, run)) for event in known if event.key not in erased]
    await harness.deliver([*known, *again[: len(again) // 2]])


async def _unknown_types(harness: Harness) -> None:
    for event in events():
        await harness.deliver([event, _imagine(event)])


async def _unknown_fields(harness: Harness) -> None:
    await harness.deliver(
        replace(event, value=write_value(_extend(event.body)), headers=(*event.headers, ("ce_imagined", b"1")))
        for event in events()
    )


async def _load(harness: Harness) -> None:
    await harness.deliver(state(_AWAY_UNTIL, compacted=False))
    await harness.deliver(_from(_AWAY_FROM))


async def _reload(harness: Harness) -> None:
    await harness.deliver(event for event in events() if _position(event) <= _AWAY_FROM)
    harness.recreate_topics()
    await harness.deliver(state(_AWAY_UNTIL, compacted=True))
    await harness.deliver(_from(_AWAY_UNTIL - 2))


async def _erasure(harness: Harness) -> None:
    erased = {event.key for event in events() if event.message == EventType.ERASED}
    await harness.deliver(event for event in events() if event.key not in erased or event.message == EventType.ERASED)


def _from(position: int) -> Iterator[Message]:
    return (event for event in events() if _position(event) >= position)


def _position(message: Message) -> int:
    return int(message.header["ce_position"])


def _imagine(event: Message) -> Message:
    """An event of a type that no release has, about an organization of its own."""
    own = {"ce_type": "org.imagined", "ce_subject": _NEVER_SEEN, "ce_orgversion": "1"}
    headers = tuple((name, own.get(name, content.decode()).encode()) for name, content in event.headers)
    body = event.body | {"org_id": _NEVER_SEEN, "version": 1, "changed": ["imagined"], "before": None, "after": None}
    return replace(
        event, message="org.imagined", key=_NEVER_SEEN.encode(), headers=headers, value=write_value(_extend(body))
    )


def _extend(node: Any) -> Any:
    """With a member more in each object."""
    if isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        return {name: _extend(member) for name, member in members.items()} | {"imagined": {"by": "a later release"}}
    return node


CASES: Final[Sequence[Case]] = (
    Case(
        "in order",
        "every event comes once, in order",
        "it does not do what the test expects of it, or the expectation is wrong; nothing else was tried",
        _in_order,
    ),
    Case(
        "duplicates",
        "every event comes twice",
        f"it adds to what it has, instead of setting it: {_SKIP}, in the same transaction as the effect",
        _duplicates,
    ),
    Case(
        "half-done work",
        "the process ends while it handles an event, which then comes again",
        "it keeps the version before the effect, or an effect without the others: make them one transaction",
        _half_done,
    ),
    Case(
        "redelivery",
        "each batch comes again, because its offsets were not committed",
        _OLD_OVER_NEW,
        _redelivery,
    ),
    Case(
        "full replay",
        "everything comes again from the beginning",
        _OLD_OVER_NEW,
        _full_replay,
    ),
    Case(
        "partial replay",
        "an operator sends the older events again",
        f"{_OLD_OVER_NEW}; keep the version of a deleted organization, too, or it comes back",
        _partial_replay,
    ),
    Case(
        "unknown types",
        "events of a type come that it does not know",
        "it raises on a type that it does not know: skip it",
        _unknown_types,
    ),
    Case(
        "unknown fields",
        "bodies, organizations, addresses and headers have members that it does not know",
        "it passes on, or rejects, whatever it gets: take what you know by name",
        _unknown_fields,
    ),
    Case(
        "load",
        "it begins with orgs.state, tombstones and replaced records included, then follows events that it has in part",
        "it does not delete on a tombstone, or takes no record of orgs.state for the organization as it is",
        _load,
    ),
    Case(
        "re-load",
        "it was away for longer than any retention: orgs.state, with tombstones, then events, at offsets from 0",
        "it does not delete on a tombstone, or trusts `before`, which says what the service had and not what you have; "
        "or it knows records by offset",
        _reload,
    ),
    Case(
        "erasure",
        "an organization is erased of which it has never heard",
        "it needs `before` or `after`, which an erasure doesn't have",
        _erasure,
    ),
)
"""In the order in which they are tried."""
