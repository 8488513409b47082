"""The command line, and a worker and a relay behind it."""

import pytest

from org_service.settings import Settings
from tests.integration.operate.parking import queue
from tests.integration.operate.restoring import copies, loss
from tests.support.operating import Service, act, orgs, running, service
from tests.support.verifying import make_history

__all__ = ["act", "copies", "loss", "orgs", "queue", "running", "service"]


@pytest.fixture
async def history(settings: Settings, service: Service) -> Service:
    """Hundreds of commands, decided and published."""
    await make_history(settings, service)
    return service
