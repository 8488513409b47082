"""The command line, and a worker and a relay behind it."""

from tests.integration.operate.parking import queue
from tests.integration.operate.restoring import copies, loss
from tests.support.operating import act, orgs, running, service

__all__ = ["act", "copies", "loss", "orgs", "queue", "running", "service"]
