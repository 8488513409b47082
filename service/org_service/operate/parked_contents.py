"""What a parked record holds, decoded as far as possible: masked, or revealed to whoever says why.

A reveal is an operation like any other: who saw the data of which record, when and why is kept.
"""

import base64
from collections.abc import Mapping
from typing import Any, ClassVar, Final, cast

import orjson

from org_events.cloudevents import AUTHORIZATION, CONTENT_TYPE, TRACEPARENT
from org_service.domain.outcomes import RELEASES_MAX, StoredRecord
from org_service.domain.reasons import ParkedState
from org_service.operate.operation import Execution, Plan, Tally, open_database
from org_service.operate.parked_selection import find
from org_service.settings import Settings
from org_service.store import parked_queues
from org_service.store.database import DatabaseConnection
from org_service.store.parked_queues import ParkedFilter, ParkedRecord
from org_service.wire.ids import is_uuid
from org_service.wire.parked import read_type, record_again

MASK: Final = "•••"
QUEUE_SHOWN_MAX: Final = 20
_PLAIN_MEMBERS: Final = frozenset({"org_id", "expected_version", "id", "type", "source", "specversion"})
"""Of a body, or of a structured event: what says nothing about anybody."""
_PLAIN_HEADERS: Final = frozenset({CONTENT_TYPE, TRACEPARENT})


class RevealParked:
    """The leave to see what a parked record holds.

    It touches nothing: a plan of no items, which nobody has to approve. Whoever may read the table could see it anyway;
    here it is kept who did, and why.
    """

    kind: ClassVar[str] = "parked reveal"

    def __init__(self, settings: Settings, parameters: Mapping[str, Any]) -> None:
        self._settings = settings
        self._parked_id = int(parameters["parked_id"])

    @property
    def resource(self) -> str:
        """The record."""
        return f"contents of parked record {self._parked_id}"

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Which record."""
        return {"parked_id": self._parked_id}

    async def plan(self) -> Plan:
        """See that there is such a record."""
        async with open_database(self._settings) as database, database.connect() as conn:
            await find(conn, self._parked_id)
        return Tally().plan({"parked_id": self._parked_id})

    async def run(self, execution: Execution) -> None:
        """Nothing: whoever shows the contents does that once this is noted as done."""


async def read(settings: Settings, parked_id: int) -> tuple[StoredRecord, list[ParkedRecord]]:
    """Read a parked record, whatever became of it; and the queue of its organization, as far as it is shown, in order.

    Raises:
        PreconditionError: There is none.
    """
    async with open_database(settings) as database, database.connect() as conn:
        return await read_from(conn, parked_id)


async def read_from(conn: DatabaseConnection, parked_id: int) -> tuple[StoredRecord, list[ParkedRecord]]:
    """As `read`, for whoever has a connection."""
    stored = await find(conn, parked_id)
    if stored.org_id is None:
        return stored, []
    queue = ParkedFilter(ParkedState.OPEN, loose=False, org_ids=[stored.org_id])
    return stored, await parked_queues.list_records(conn, queue, 0, QUEUE_SHOWN_MAX)


def describe(stored: StoredRecord, *, reveal: bool) -> dict[str, Any]:
    """What is known of a record, as JSON. Tokens are never in it: none is kept.

    Args:
        stored: As it is kept.
        reveal: Show what it holds; else names of fields stay, and what they say is masked.
    """
    headers = {name: _show_header(name, content, reveal=reveal) for name, content in record_again(stored).headers}
    return {
        "id": stored.id,
        "state": "exhausted" if stored.state == ParkedState.OPEN and stored.exhausted else str(stored.state),
        "reason": str(stored.reason),
        "detail": stored.detail,
        "releases_left": max(0, RELEASES_MAX + 1 - stored.attempts) if stored.state == ParkedState.OPEN else None,
        "ended_at": stored.ended_at,
        "run": stored.operation_id,
        "parked_at": stored.recorded_at,
        "topic": stored.topic,
        "partition": stored.partition,
        "offset": stored.offset,
        "broker_time": stored.broker_time,
        "org_id": stored.org_id,
        "command_id": stored.command_id,
        "type": read_type(stored),
        "actor": stored.actor,
        "authenticated_by": stored.authenticated_by,
        "key": _show_key(stored.key, reveal=reveal),
        "headers": headers,
        "value": _show_value(stored.value, reveal=reveal),
        "value_bytes": stored.value_bytes if stored.value_bytes is not None else len(stored.value or b""),
        "revealed": reveal,
    }


def _show_key(key: bytes | None, *, reveal: bool) -> str | None:
    if key is None:
        return None
    return _show_text(key) if reveal or is_uuid(key) else MASK


def _show_header(name: str, content: bytes | None, *, reveal: bool) -> str | None:
    if content is None:
        return None
    plain = name.startswith("ce_") or name.lower() in _PLAIN_HEADERS
    return _show_text(content) if reveal or plain else MASK


def _show_value(value: bytes | None, *, reveal: bool) -> Any:
    if value is None:
        return None
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return _show_text(value) if reveal else MASK
    return _mask(document, reveal=reveal)


def _mask(node: Any, *, reveal: bool) -> Any:
    """The same shape; what says something is masked. A token that somebody put into the body always is."""
    if isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        return {
            name: MASK
            if AUTHORIZATION in name.lower()
            else content
            if name in _PLAIN_MEMBERS and not isinstance(content, (dict, list))
            else _mask(content, reveal=reveal)
            for name, content in members.items()
        }
    if isinstance(node, list):
        return [_mask(each, reveal=reveal) for each in cast("list[Any]", node)]
    return node if reveal or node is None else MASK


def _show_text(content: bytes) -> str:
    """As text where it is such, else in Base64."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"base64:{base64.b64encode(content).decode()}"
