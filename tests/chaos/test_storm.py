"""The storm, as part of the suite."""

from pathlib import Path

import pytest

from org_service.settings import Settings
from tests.chaos.storm import Storm, plan, storm_settings
from tests.support.arena import Arena, rows_of
from tests.support.crowd import Crowd

COMMANDS = 10_000
KILLS = 20
ORGANIZATIONS = 500
SEED = 20_300_101


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(240)
def test_kills_while_commands_flow_leave_an_exact_account(settings: Settings, tmp_path: Path) -> None:
    sendings = list(Crowd(SEED, ORGANIZATIONS).commands(COMMANDS))
    kills = plan(rows_of(sendings), KILLS, SEED)
    with Arena(storm_settings(settings), tmp_path) as arena:
        outcome = Storm(arena, sendings, kills).run()
    print(f"seed {SEED}, kills {outcome.kills}, {outcome.seconds:.0f} s\n{outcome.findings.text()}")
    assert outcome.findings.ok, outcome.findings.text()
    assert sum(outcome.kills.values()) == KILLS
    assert outcome.kills.keys() == {"worker", "relay"}
    assert set(outcome.statuses.values()) == {0}
    assert not any(outcome.errors.values()), outcome.errors
