"""What a publisher sees whose commands' log has lost its end."""

import asyncio
from uuid import uuid4

import pytest

import org_local
from org_events import Topics
from org_events.publishing import OrganizationClient, OutcomeUnknown
from tests.integration.client.answering import AnsweringService
from tests.support.log_faults import cut_tail

pytestmark = pytest.mark.integration


async def test_a_command_that_the_broker_does_not_take_after_a_loss_gets_its_outcome_at_the_second_try(
    stack: org_local.Stack, topics: Topics, service: AnsweringService, orgs: OrganizationClient
) -> None:
    """An idempotent producer numbers its batches; the broker has forgotten some, and takes none behind them."""
    org_id = uuid4()
    for version in range(3):
        await orgs.update(org_id, name=f"Acme {version}")
    last = service.received[-1]
    await asyncio.to_thread(cut_tail, stack, topics.commands, last.partition, last.offset)
    with pytest.raises(OutcomeUnknown, match="OutOfOrderSequenceNumber") as caught:
        await orgs.update(org_id, name="Globex")
    unknown = caught.value
    assert not unknown.confirmed
    assert unknown.command is not None
    result = await orgs.execute(unknown.command, command_id=unknown.command_id)
    assert (result.command_id, result.outcome) == (unknown.command_id, "applied")
    assert (await orgs.update(org_id, name="Initech")).outcome == "applied"  # and it goes on
    assert [each.body["name"] for each in service.received][-2:] == ["Globex", "Initech"]
