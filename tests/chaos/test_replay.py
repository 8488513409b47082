"""Everything is replayed in place while commands flow, by processes that are killed on their way: nobody is harmed.

Harmless means: no outcome, version, organization or record that was there without it is another one, and a subscriber
that skips versions it has ends with the organizations as they are.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from org_service.domain.reasons import OperationState
from org_service.operate import runs
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support.observed import Observed, Record
from tests.support.processes import CommandProcess
from tests.support.random_commands import RandomCommands
from tests.support.sending import Sending
from tests.support.system import System
from tests.support.verified import find_differences
from tests.support.waiting import POLL_S, wait_for

SEED = 20_261_128
ORGANIZATIONS = 400
BEFORE = 4_000
"""Commands whose events are replayed, with those of what is decided until the plan is made."""
FLOWING = 12_000
RATE_PER_S = 2_000
SLOW_PER_S = 1_000
"""Of a replay until it is killed, so that it has something left to do."""
SETTLE_TIMEOUT_S = 60


class Flow:
    """Commands that go out evenly, a few at each call."""

    def __init__(self, system: System, sendings: Iterator[Sending]) -> None:
        self._system = system
        self._sendings = sendings
        self._began = time.monotonic()
        self._first = system.publisher.sent

    def __call__(self) -> None:
        due = self._first + (time.monotonic() - self._began) * RATE_PER_S
        while self._system.publisher.sent < due and (sending := next(self._sendings, None)) is not None:
            self._system.publisher.send(sending)

    def finish(self) -> None:
        """Send what is left, as evenly."""
        end = self._first + FLOWING
        while self._system.publisher.sent < end:
            self()
            time.sleep(POLL_S)


class Replay:
    """`orgs replay …` as a process: planned, begun, killed, and continued by another process to its end."""

    def __init__(self, settings: Settings, folder: Path, *what: str) -> None:
        self._settings = settings
        self._folder = folder
        self._what = what
        self._processes: list[CommandProcess] = []

    def run(self, flow: Flow) -> Operation:
        """Do it all while commands flow. Returns the run as it ended."""
        rate = ("--rate-per-second-max", str(SLOW_PER_S))
        first = self._start("replay", *self._what, "--execute", "--reason", "lost by billing", *rate)
        operation = self._wait(flow, lambda found: found.done > BEFORE // 10)
        first.kill()
        self._wait(flow, lambda found: found.abandoned)
        asyncio.run(runs.set_rate(self._settings, operation.id, None))
        second = self._start("run", str(operation.id))
        done = self._wait(flow, lambda found: found.state == OperationState.DONE)
        assert second.wait() == 0, second.said()
        return done

    def close(self) -> None:
        """End its processes."""
        for process in self._processes:
            process.close()

    def _start(self, *arguments: str) -> CommandProcess:
        self._processes.append(CommandProcess(self._settings, self._folder, *arguments))
        return self._processes[-1]

    def _wait(self, flow: Flow, is_there: Any) -> Operation:
        latest: list[Operation] = []

        def look() -> bool:
            flow()
            latest[:] = asyncio.run(runs.list_latest(self._settings, 1))
            kind = "replay " + self._what[0]
            return bool(latest) and latest[0].kind == kind and is_there(latest[0])

        wait_for(look, f"{self._what[0]} replayed: {latest}, {[each.said() for each in self._processes]}", 60, POLL_S)
        return latest[0]


def contents(records: list[Record]) -> list[tuple[Any, ...]]:
    """By partition in order: all but offsets and times."""
    records = sorted(records, key=lambda each: (each.partition, each.offset))
    return [(each.partition, each.key, each.value, each.headers) for each in records]


def fold(events: list[Record]) -> dict[str, Any]:
    """What a subscriber has who skips the versions that it has, and finds that no other one is missing."""
    versions: dict[str, int] = {}
    state: dict[str, Any] = {}
    for record in sorted(events, key=lambda each: (each.partition, each.offset)):
        event = orjson.loads(record.value or b"")
        org_id, version = event["org_id"], event["version"]
        if version <= versions.get(org_id, 0):
            continue
        assert version == versions.get(org_id, 0) + 1
        versions[org_id], state[org_id] = version, event["after"]
    return {org_id: after for org_id, after in state.items() if after is not None}


def names_and_versions(observed: Observed) -> dict[str, Any]:
    """Of the organizations in the table that are there."""
    there = (row for row in observed.organizations.values() if row["deleted_at"] is None)
    return {row["id"]: (row["name"], row["domain"], row["version"]) for row in there}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Runs that are killed are free a second later."""
    operate = settings.operate.model_copy(update={"lease_s": 1, "approval_above": 100_000})
    return settings.model_copy(update={"operate": operate})


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(300)
def test_everything_is_replayed_in_place_while_commands_flow(settings: Settings, tmp_path: Path) -> None:
    sendings = RandomCommands(SEED, ORGANIZATIONS).commands(BEFORE + FLOWING)
    with System(settings, tmp_path) as system:
        for role in ("relay", "worker"):
            system.add(role).wait_until_ready()
        for _ in range(BEFORE):
            system.publisher.send(next(sendings))
        system.settle(SETTLE_TIMEOUT_S)
        flow = Flow(system, sendings)
        replay = Replay(settings, tmp_path, "events", "--in-place")
        try:
            run = replay.run(flow)
        finally:
            replay.close()
        flow.finish()
        system.settle(SETTLE_TIMEOUT_S)
        observed = system.observe()
        findings = system.check(observed)
        errors = {process.name: process.errors() for process in system.processes}
    assert findings.ok, findings.text()
    assert not any(errors.values()), errors

    planned = run.parameters["selection"]["to_position"]
    meant = [record for record in observed.events if int(record.header("ce_position") or 0) <= planned]
    header = ("ce_replayrun", str(run.id).encode())
    again = [(*rest, (*headers, header)) for *rest, headers in contents(meant)]
    assert contents(observed.replayed) == again
    assert run.counts == {"sent": len(again)}
    held = fold(observed.events + observed.replayed)
    assert {org_id: (each["name"], each["domain"], each["version"]) for org_id, each in held.items()} == (
        names_and_versions(observed)
    )
    assert asyncio.run(find_differences(settings)) == []
