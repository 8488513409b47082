"""Results that can't be read: calls that wait for others are not affected, calls that wait for them learn why."""

import asyncio
from uuid import UUID, uuid4

import pytest

from org_events import Topics, partition_for
from org_events.kafka import sick
from org_events.publishing import OrganizationClient, OutcomeUnknown
from org_local.stack import Stack
from tests.integration.client.answering import AnsweringService, Received, result
from tests.support import log_faults

pytestmark = pytest.mark.integration

ORGS = {partition_for(str(each).encode(), 3): each for each in (UUID(int=number, version=4) for number in range(50))}
"""An organization of each partition."""


async def test_outcomes_of_other_partitions_arrive_and_a_missing_one_says_why(
    stack: Stack, topics: Topics, service: AnsweringService, orgs: OrganizationClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sick, "RETRY_S", 0.2)

    def silent(_: Received) -> None:
        return None

    service.answer = silent
    ids = {partition: uuid4() for partition in ORGS}
    waiting = {
        partition: asyncio.create_task(orgs.restore(org_id, command_id=ids[partition], timeout_s=3))
        for partition, org_id in ORGS.items()
    }
    await service.arrived(3)
    offset = log_faults.ends(stack.bootstrap_servers, topics.results, [1])[1]
    async with service.transaction():  # nobody can read what was written until it ends
        await service.send(*(result(command) for command in service.received))
        await asyncio.to_thread(log_faults.flip_byte, stack, topics.results, 1, offset, mask=1)
    for partition in (0, 2):
        assert (await waiting[partition]).code == 200
    assert orgs.unread is not None
    with pytest.raises(
        OutcomeUnknown,
        match=rf"results cannot be read: {topics.results}, partition 1: unreadable from offset {offset}: Corrupt",
    ):
        await waiting[1]
    later = asyncio.create_task(orgs.outcome(ids[1], timeout_s=20))
    await asyncio.to_thread(log_faults.flip_byte, stack, topics.results, 1, offset, mask=1)
    assert (await later).code == 200
    assert orgs.unread is None
