"""Hostile sockets, as part of the suite: `make hostile` has ten thousand."""

from pathlib import Path

import pytest

from org_service.settings import Settings
from tests.chaos.hostile import run
from tests.support.edge import People, add_staff, with_edge
from tests.support.processes import ServiceProcess

P99_MS = 1_000
"""`make hostile` allows a tenth, on a machine of its own; here edge, attackers and other tests share its cores. Without
its guards an edge takes seconds, or turns callers away."""
CONNECTIONS = 600
CONNECTIONS_MAX = 400
"""Fewer than there are, so that unauthenticated clients must go for callers to come in."""


@pytest.mark.chaos
@pytest.mark.integration
async def test_an_honest_client_hardly_notices_hostile_ones(settings: Settings, tmp_path: Path) -> None:
    people = People(tmp_path)
    await add_staff(settings, "root")
    bounded = with_edge(settings, people, rate_per_s=50, rate_burst=100, connections_max=CONNECTIONS_MAX)
    edge = ServiceProcess("edge", bounded, tmp_path)
    try:
        edge.start()
        edge.wait_until_ready()
        outcome = await run(edge, people, CONNECTIONS, 300, 4)
        assert edge.terminate() == 0
    finally:
        edge.close()
    print(outcome.text())
    assert outcome.attacked.failures == []
    assert outcome.attacked.percentile(0.99) <= P99_MS, outcome.text()
    assert outcome.closed["full"] > 0
    assert outcome.grown_mb < 100
