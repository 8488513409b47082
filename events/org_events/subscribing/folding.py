"""Which records are changes to a subscriber that knows certain versions; pure, the same for loading and following.

The only question is the version. One that is not above the known one is old, whatever brought it: a repetition, a
replay, a record that the load had already. The next one is handed out. One further ahead is a gap.

**A gap heals itself**, because an event carries the whole organization: it is handed out as `Kind.HEALED`, and stands
for what is missing. Declined: to read the organization from `orgs.state` at a gap. It can't bring the missing versions
back either, ends in the same organization, and takes a scan of a compacted partition while all others wait.

Known versions are numbers with a sign: 7 is an organization at version 7, -7 one that was deleted at version 7, and 0
(or nothing) one that was never seen. A deletion may be forgotten by Kafka, so whatever comes back from nothing follows
it: there is no gap where `before` is null and nothing was there.
"""

import re
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Final, NamedTuple, cast

from pydantic_core import from_json

from org_events.events import EventType
from org_events.subscribing.changes import TYPE_HEADER, VERSION_HEADER, Change, Keeper, Kind, Record, Session
from org_events.topics import partitions_for

_KEY: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Known = MutableMapping[bytes, int]
"""By key."""


class Versioned(NamedTuple):
    """A record of ours, and the version that it brings."""

    key: bytes
    version: int
    record: Record


def read_versions(records: Iterable[Record]) -> list[Versioned]:
    """Those records that are the service's: keyed by an organization, with a version. Others are nobody's business."""
    found: list[Versioned] = []
    for record in records:
        key = record.key
        if key is None or not _KEY.fullmatch(key):
            continue
        for name, content in record.headers:
            if name == VERSION_HEADER:
                if content is not None and content.isdigit():
                    found.append(Versioned(key, int(content), record))
                break
    return found


def drop_left_behind(records: Sequence[Versioned], partition: int, partitions: int) -> list[Versioned]:
    """Without what the topics' growth left behind on `orgs.state`: records whose key belongs on another partition.

    Args:
        records: Of one partition.
        partition: Its number.
        partitions: How many each topic has, for all that is published. A partition above has its own records: the
            growth is under way.
    """
    if partition >= partitions:
        return list(records)
    places = partitions_for([each.key for each in records], partitions)
    return [each for each, place in zip(records, places, strict=True) if place == partition]


def fold_states(records: Iterable[Versioned], known: Known, keeper: Keeper[Session]) -> list[Change[Session]]:
    """The changes that records of `orgs.state` bring; `known` is brought up to them."""
    changes: list[Change[Session]] = []
    for key, version, record in records:
        last = known.get(key, 0)
        if version <= abs(last):
            continue
        known[key] = version if record.value is not None else -version
        if record.value is not None or last > 0:  # that something unknown is gone is no change
            changes.append(Change(keeper, Kind.LOADED, key, version, record))
    return changes


def fold_events(
    records: Iterable[Versioned], known: Known, keeper: Keeper[Session], *, whole: bool
) -> list[Change[Session]]:
    """The changes that records of `orgs.events` bring; `known` is brought up to them.

    Args:
        records: In order.
        known: At least of their keys.
        keeper: Of the changes.
        whole: Whether what isn't known does not exist; else its first event follows nothing.
    """
    changes: list[Change[Session]] = []
    for key, version, record in records:
        last = known.get(key, 0)
        if version <= abs(last):
            continue
        event_type = (dict(record.headers).get(TYPE_HEADER) or b"").decode(errors="replace")
        follows = version == abs(last) + 1 or (last == 0 and not whole) or _follows_nothing(last, event_type, record)
        kind = Kind.EVENT if follows else Kind.HEALED
        change = Change(keeper, kind, key, version, record, event_type=event_type)
        known[key] = -version if change.deletes() else version
        changes.append(change)
    return changes


def find_gone(known: MutableMapping[bytes, int], seen: set[bytes], keeper: Keeper[Session]) -> list[Change[Session]]:
    """The deletions that a whole load has no record of any more.

    Args:
        known: All of a partition that was known before the load.
        seen: All that the load met.
        keeper: Of the changes.
    """
    gone = [(key, version) for key, version in known.items() if version > 0 and key not in seen]
    return [Change(keeper, Kind.GONE, key, version, None) for key, version in gone]


def _follows_nothing(last: int, event_type: str, record: Record) -> bool:
    """Whether an event isn't missing anything though its version is further ahead. An erasure is all that is left."""
    if event_type == EventType.ERASED:
        return True
    return last <= 0 and cast("dict[str, object]", from_json(record.value or b"{}")).get("before") is None
