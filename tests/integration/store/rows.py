"""Rows put into the tables by hand, without the worker."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from org_service.store.engine import Session

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ACME = UUID("0195a000-0000-7000-8000-000000000001")


async def insert(session: Session, table: str, **values: Any) -> None:
    """One row of `table`."""
    names = ", ".join(f'"{name}"' for name in values)
    places = ", ".join(f"${place}" for place in range(1, len(values) + 1))
    await session.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", *values.values())


async def insert_journal(session: Session, position: int, **changed: Any) -> UUID:
    """A journal row, an applied update unless told otherwise; its command id. The head is set to `position`."""
    row: dict[str, Any] = {
        "position": position,
        "command_id": uuid4(),
        "org_id": ACME,
        "version": position,
        "command_type": "org.update",
        "event_type": "org.updated",
        "outcome": "applied",
        "code": 200,
        "actor": "user:7",
        "request_digest": b"\x01" * 32,
        "command_partition": 2,
        "command_offset": 100 + position,
        "changed": '["domain"]',
        "before": '{"domain":null}',
        "after": '{"domain":"acme.com"}',
        "problem": None,
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "recorded_at": AT,
    } | changed
    await insert(session, "journal", **row)
    await session.execute("UPDATE journal_head SET position = $1", position)
    return row["command_id"]


async def insert_organization(session: Session, org_id: UUID, name: str, **changed: Any) -> None:
    """An organization at version 1, active unless told otherwise."""
    row: dict[str, Any] = {
        "id": org_id,
        "name": name,
        "name_key": name.lower(),
        "domain": None,
        "primary_address": None,
        "created_at": AT,
        "updated_at": AT,
        "deactivated_at": None,
        "deleted_at": None,
        "version": 1,
    } | changed
    await insert(session, "organization", **row)


async def insert_parked(session: Session, offset: int, **changed: Any) -> None:
    """A parked command, open unless told otherwise."""
    row: dict[str, Any] = {
        "topic": "orgs.commands",
        "partition": 0,
        "offset": offset,
        "broker_time": AT,
        "key": b"key",
        "value": b"{}",
        "headers": '[["ce_id","YQ=="],["odd",null]]',
        "org_id": ACME,
        "command_id": uuid4(),
        "request_digest": b"\x01" * 32,
        "reason": "handler_raised",
        "detail": "ZeroDivisionError",
        "attempts": 1,
        "state": "open",
        "recorded_at": AT,
    } | changed
    await insert(session, "parked", **row)
