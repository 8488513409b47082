"""Commands that are known to be good, decided by the code that has just failed on a real one.

A build that raises on everything shows it by its first command, however few come: it raises on these as well. One that
decides any of them is not broken altogether, and the command that it failed on is parked.

No I/O: organizations and time are made up; the reader, the decision and the policy are the real ones.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from org_events.cloudevents import command_headers
from org_events.commands import (
    Command,
    CreateOrganization,
    DeactivateOrganization,
    DeleteOrganization,
    ReactivateOrganization,
    RestoreOrganization,
    UpdateOrganization,
)
from org_service.domain.access import Relations
from org_service.domain.fold import Decider, Fold, Plan
from org_service.domain.organization import StoredOrganization
from org_service.domain.policy import Policy
from org_service.domain.requests import LOG_APPEND_TIME, Record, Request, Unreadable
from org_service.domain.snapshot import Snapshot

Reader = Callable[[Record], Request | Unreadable]
"""What `wire.commands.read` is."""

_USER: Final = "canary"
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_ID, _COMMAND_ID = (UUID(f"00000000-0000-4000-8000-{number:012}") for number in (1, 2))
_ACTIVE: Final = StoredOrganization(_ID, "Canary", "canary", "canary.example", None, _NOW, _NOW, None, None, 1)
_DEACTIVATED: Final = _ACTIVE._replace(deactivated_at=_NOW)
_DELETED: Final = _ACTIVE._replace(name_key=None, deleted_at=_NOW)
CANARIES: Final[Sequence[tuple[Command, StoredOrganization | None]]] = (
    (UpdateOrganization(org_id=_ID, name="Canary 2"), _ACTIVE),
    (CreateOrganization(org_id=_ID, name="Canary"), None),
    (DeactivateOrganization(org_id=_ID), _ACTIVE),
    (ReactivateOrganization(org_id=_ID), _DEACTIVATED),
    (DeleteOrganization(org_id=_ID), _ACTIVE),
    (RestoreOrganization(org_id=_ID), _DELETED),
)
"""One of each type, with an organization that it changes."""


class _CanaryRecord(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes | None]]


def decides_nothing(read: Reader, decider: Decider | None, policy: Policy | None) -> bool:
    """Whether our code raises on every one of them; asks no further than the first that it decides.

    Args:
        read: Makes requests of records.
        decider: As for `Fold`.
        policy: By which a member of the staff is judged; None where all publishers are trusted.
    """
    return not any(_is_decided(command, there, read, decider, policy) for command, there in CANARIES)


def _is_decided(
    command: Command, there: StoredOrganization | None, read: Reader, decider: Decider | None, policy: Policy | None
) -> bool:
    try:
        return bool(decide_canary(command, there, read, decider, policy).journal)
    except Exception:  # noqa: BLE001 - that is what is asked
        return False


def decide_canary(
    command: Command, there: StoredOrganization | None, read: Reader, decider: Decider | None, policy: Policy | None
) -> Plan:
    """Read and decide one command; raises what reading raises."""
    headers = command_headers(command_id=_COMMAND_ID, command_type=command.type, source="/canary", actor=_USER)
    time_ms = int(_NOW.timestamp() * 1000)
    record = _CanaryRecord("canary", 0, 0, time_ms, LOG_APPEND_TIME, str(_ID).encode(), command.to_body(), headers)
    request = read(record)
    if policy is not None and isinstance(request, Request):
        request = request._replace(user_id=_USER)
    organizations = {} if there is None else {_ID: there}
    snapshot = Snapshot(organizations, {}, {}, {}, {}, Relations(frozenset({_USER}), {}, {}))
    fold = Fold(snapshot, _NOW, policy, queued_max=1, decider=decider)
    fold.add(request)
    return fold.plan
