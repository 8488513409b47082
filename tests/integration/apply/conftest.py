"""An applier as a worker makes it."""

from collections.abc import AsyncIterator

import pytest

from org_service.apply.applier import Applier
from org_service.settings import Settings
from tests.support.appliers import applying


@pytest.fixture
async def applier(settings: Settings) -> AsyncIterator[Applier]:
    async with applying(settings) as made:
        yield made
