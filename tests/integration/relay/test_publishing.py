"""The relay against real servers: what stands in the journal is published once, in order, as the contract says."""

import pytest
from tests.support.relaying import assert_exactly_once, changes, journal, relay_settings, running, seen

from org_service.settings import Settings

pytestmark = pytest.mark.integration


async def test_everything_is_published_once_and_in_order(settings: Settings) -> None:
    head = await journal(settings, changes(500))
    async with running(relay_settings(settings, batch_rows_max=37)) as relay:
        await relay.published(head)
        head = await journal(settings, changes(100, after=500))
        await relay.published(head)
    assert_exactly_once(await seen(settings), range(1, 601))
