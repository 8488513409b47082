"""What the tests of the applier apply, and what they look at then."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from org_events.commands import CreateOrganization
from tests.support.records import FakeRecord, record_of


def created(name: str) -> tuple[UUID, FakeRecord]:
    org_id = uuid4()
    return org_id, record_of(CreateOrganization(org_id=org_id, name=name))


async def journal(database: asyncpg.Connection) -> Sequence[Any]:
    return await database.fetch("SELECT * FROM journal ORDER BY position")
