"""What the service is compared with: a plain FastStream handler on SQLModel, as a good developer writes it.

One handler a message, a typed body, a session, the row by its id, change, commit, then publish. It loses the event of
a change when it is killed between the two, applies a redelivered command again, and has neither journal, preconditions,
results nor a state topic: less than the service does, so its figure is an upper bound of this way of writing.

Given the best it can have: uvloop, asyncpg, a pool, no access log, no second SELECT after commit. Durable as the
service is: offsets are committed after the handler (`AckPolicy.ACK`), the producer is idempotent with acks=all.
`ack_first`, FastStream's default, commits offsets in the background and so loses commands in a crash. With more than
one worker FastStream wants `AckPolicy.ACK`, and reads partitions in parallel, which keeps each organization's order.
"""

import sys
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import uvloop
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker
from faststream.kafka.annotations import KafkaMessage
from pydantic import BaseModel
from sqlalchemy import Column, DateTime
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from org_events.commands import UpdateOrganization
from org_events.topics import Topics
from tests.bench.load import fields, organization_ids

_INSERTED_AT_ONCE: Final = 2_000


class PlainOrganization(SQLModel, table=True):
    """The row."""

    id: UUID = Field(primary_key=True)
    name: str = Field(unique=True)
    domain: str | None
    primary_address: dict[str, Any] | None = Field(sa_column=Column(JSONB))
    created_at: datetime = Field(sa_column=Column(DateTime(timezone=True)))
    updated_at: datetime = Field(sa_column=Column(DateTime(timezone=True)))
    version: int


class PlainEvent(BaseModel):
    """What is published; as large as the service's event."""

    org_id: UUID
    version: int
    changed: list[str]
    before: dict[str, Any]
    after: dict[str, Any]
    command_id: str
    recorded_at: datetime


def make_broker(
    engine: AsyncEngine, bootstrap_servers: str, topics: Topics, ack_policy: AckPolicy, max_workers: int
) -> KafkaBroker:
    """The application."""
    broker = KafkaBroker(bootstrap_servers, acks="all", enable_idempotence=True, logger=None)
    events = broker.publisher(topics.events)

    @broker.subscriber(
        topics.commands,
        group_id=f"{topics.prefix}plain",
        auto_offset_reset="earliest",
        ack_policy=ack_policy,
        max_workers=max_workers,
    )
    async def handle(command: UpdateOrganization, message: KafkaMessage) -> None:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            organization = await session.get(PlainOrganization, command.org_id)
            if organization is None:
                return
            before = organization.model_dump(mode="json")
            changes = command.model_dump(include={"name", "domain", "primary_address"}, exclude_unset=True)
            organization.sqlmodel_update(changes)
            organization.version += 1
            organization.updated_at = datetime.now(UTC)
            await session.commit()
        event = PlainEvent(
            org_id=organization.id,
            version=organization.version,
            changed=list(changes),
            before=before,
            after=organization.model_dump(mode="json"),
            command_id=message.headers["ce_id"],
            recorded_at=organization.updated_at,
        )
        headers = {"ce_type": "org.updated", "ce_commandid": event.command_id}
        await events.publish(event, key=str(organization.id).encode(), headers=headers)

    return broker


async def _insert_organizations(engine: AsyncEngine, count: int) -> None:
    now = datetime.now(UTC)
    rows = [
        {"id": org_id, **fields(number), "created_at": now, "updated_at": now, "version": 1}
        for number, org_id in enumerate(organization_ids(count))
    ]
    table = PlainOrganization.metadata.tables["plainorganization"]
    async with engine.begin() as connection:
        await connection.run_sync(table.create)
        for start in range(0, count, _INSERTED_AT_ONCE):
            await connection.execute(table.insert(), rows[start : start + _INSERTED_AT_ONCE])


async def main(
    bootstrap_servers: str, prefix: str, database_url: str, ack_policy: str, max_workers: str, organizations: str
) -> None:
    """Make the table, then handle commands until SIGTERM."""
    engine = create_async_engine(
        database_url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=int(max_workers) + 1
    )
    await _insert_organizations(engine, int(organizations))
    broker = make_broker(engine, bootstrap_servers, Topics(prefix), AckPolicy(ack_policy), int(max_workers))
    await FastStream(broker, logger=None).run()
    await engine.dispose()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
