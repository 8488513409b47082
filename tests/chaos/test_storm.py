"""The storm, as part of the suite."""

from pathlib import Path

import pytest

import org_local
from org_local.stack import BOOTSTRAP_SERVERS_VARIABLE, DATABASE_URL_VARIABLE
from org_service.settings import Settings
from tests.chaos.storm import Storm, main, plan, storm_settings
from tests.support.random_commands import RandomCommands
from tests.support.system import System, rows_of

COMMANDS = 6_000
KILLS = 12
ORGANIZATIONS = 500
SEED = 20_300_101


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(240)
def test_killed_processes_leave_an_exact_account(settings: Settings, tmp_path: Path) -> None:
    sendings = list(RandomCommands(SEED, ORGANIZATIONS).commands(COMMANDS))
    kills = plan(rows_of(sendings), KILLS, SEED)
    with System(storm_settings(settings), tmp_path) as system:
        outcome = Storm(system, sendings, kills).run()
    print(f"seed {SEED}, kills {outcome.kills}, {outcome.seconds:.0f} s\n{outcome.findings.text()}")
    assert outcome.findings.ok, outcome.findings.text()
    assert sum(outcome.kills.values()) == KILLS
    assert outcome.kills.keys() == {"worker", "relay"}
    assert set(outcome.statuses.values()) == {0}
    assert not any(outcome.errors.values()), outcome.errors


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(240)
def test_the_program_storms_on_a_database_and_topics_of_its_own(
    stack: org_local.Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(BOOTSTRAP_SERVERS_VARIABLE, stack.bootstrap_servers)
    monkeypatch.setenv(DATABASE_URL_VARIABLE, stack.database_url)
    assert main(["--commands", "1500", "--kills", "2", "--orgs", "100", "--seed", "7"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("storm: exact, 1,500 commands, 1 worker and 1 relay kills")
    assert last.endswith("seed 7")
