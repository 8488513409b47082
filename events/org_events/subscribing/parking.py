"""What becomes of changes whose handler raises: tried again, then that organization waits, in order; pure.

A parked change is kept as it came, so that releasing it is the same as handling it for the first time.
"""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from org_events.subscribing.changes import Change, Headers, Keeper, Kind, Session
from org_events.subscribing.stores import Parked

REASON_CHARS_MAX: Final = 1_000
"""Of what was raised, as text."""
_WITH_ALL_BYTES: Final = "latin-1"


class Patience(NamedTuple):
    """How long a handler that raises is tried for one change, while the others wait, and how much is parked."""

    waits_s: Sequence[float] = (0.1, 0.5, 2.0)
    """Between tries."""
    parked_organizations_max: int = 100
    """In one partition. Where more fail it is no single organization's fault: nothing more is parked, and the handler
    is tried until it succeeds."""
    longest_wait_s: float = 10.0
    """Between such tries."""


class _Kept(NamedTuple):
    """A record that was parked."""

    key: bytes
    value: bytes | None
    headers: Headers
    offset: int = -1


def pack(change: Change[Any], reason: str) -> Parked:
    """A change as it is kept."""
    headers = [(name, None if content is None else content.decode(_WITH_ALL_BYTES)) for name, content in change.headers]
    value = None if change.value is None else change.value.decode(_WITH_ALL_BYTES)
    content = json.dumps({"kind": change.kind, "type": change.type, "value": value, "headers": headers})
    return Parked(change.key, change.version, content.encode(), reason[:REASON_CHARS_MAX])


def unpack(parked: Parked, keeper: Keeper[Session]) -> Change[Session]:
    """The change as it came."""
    content = cast("dict[str, Any]", json.loads(parked.content))
    headers = [(name, None if text is None else text.encode(_WITH_ALL_BYTES)) for name, text in content["headers"]]
    value = None if content["value"] is None else content["value"].encode(_WITH_ALL_BYTES)
    record = _Kept(parked.key, value, headers)
    return Change(keeper, Kind(content["kind"]), parked.key, parked.version, record, event_type=content["type"])
