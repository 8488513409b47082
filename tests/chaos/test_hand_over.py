"""Workers join and leave while commands flow: nothing is doubled, nothing fails, nobody waits for long."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from org_service.settings import Settings
from tests.support.processes import ServiceProcess
from tests.support.random_commands import RandomCommands
from tests.support.sending import Sending
from tests.support.system import System
from tests.support.waiting import POLL_S

COMMANDS = 16_000
ORGANIZATIONS = 2_000
SEED = 20_300_102
HAND_OVERS = 4
"""Joins and leaves while the commands flow: two workers come and go."""
RATE_PER_S = 1_500
TRICKLE_PER_S = 100
"""When a hand-over has had its share of the commands and isn't over: some must still flow, as that is the point."""
AHEAD_MAX = 10_000
"""Commands published but not journaled, where the machine can't keep up with the rate."""
BATCH_BOUND_S = 10
BATCH_BUCKET = "orgs_worker_batch_seconds_bucket{le=10.24}"
"""The first bound of the histogram's that is not below `BATCH_BOUND_S`."""
BATCHES = "orgs_worker_batch_seconds_count"
SETTLE_TIMEOUT_S = 60


class HandOvers:
    """A second and a third worker that come and go, one small step at each call, none of which waits."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._steps = self._plan()
        self.joined = 0
        self.left = 0
        self.statuses: list[int] = []

    def step(self) -> None:
        """Go on where the last step ended."""
        next(self._steps, None)

    @property
    def done(self) -> int:
        """How many joins and leaves are over."""
        return self.joined + self.left

    def _plan(self) -> Iterator[None]:
        for number in range(HAND_OVERS // 4):
            pair: list[ServiceProcess] = []
            for place in ("second", "third"):
                process = self._system.add("worker", f"{place}-{number}")
                pair.append(process)
                while not has_worked(process):
                    yield
                self.joined += 1
            for process in pair:
                assert_quick(process)
                process.ask_to_end()
                while (status := process.status()) is None:
                    yield
                self.statuses.append(status)
                self.left += 1


def has_worked(process: ServiceProcess) -> bool:
    """Whether a worker took a batch since it joined."""
    assert process.running, process.tail()
    try:
        return process.metrics().get(BATCHES, 0) > 0
    except OSError:
        return False


def assert_quick(process: ServiceProcess) -> None:
    """No batch took longer than a rebalance may, its waiting for the locks of a worker that leaves included."""
    metrics = process.metrics()
    assert metrics[BATCH_BUCKET] == metrics[BATCHES], f"{process.name}: a batch took more than {BATCH_BOUND_S} s"


def flow(system: System, sendings: Iterator[Sending], hand_overs: HandOvers) -> None:
    """Publish everything while workers come and go, so that each hand-over has its share of the commands."""
    known: set[str] = set()
    due, last = 0.0, time.monotonic()
    sending = next(sendings, None)
    while sending is not None:
        head, now = system.head(), time.monotonic()
        share = COMMANDS // (HAND_OVERS + 1) * (hand_overs.done + 1)
        due += (now - last) * (RATE_PER_S if due < share else TRICKLE_PER_S)
        last = now
        while sending is not None and system.publisher.sent < due and len(known) - head < AHEAD_MAX:
            if sending.command_id is not None:
                known.add(sending.command_id)
            system.publisher.send(sending)
            sending = next(sendings, None)
        hand_overs.step()
        time.sleep(POLL_S)


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(300)
def test_workers_that_join_and_leave_cause_no_duplicate_and_no_failure(settings: Settings, tmp_path: Path) -> None:
    with System(settings, tmp_path) as system:
        relay, first = system.add("relay"), system.add("worker", "first")
        first.wait_until_ready()
        hand_overs = HandOvers(system)
        flow(system, RandomCommands(SEED, ORGANIZATIONS).commands(COMMANDS), hand_overs)
        system.settle(SETTLE_TIMEOUT_S)
        staying = [process for process in system.processes if process.running]
        for process in staying:
            if process.role == "worker" and has_worked(process):
                assert_quick(process)
        hand_overs.statuses += [process.terminate() for process in staying]
        findings = system.check()
        errors = {process.name: process.errors() for process in system.processes}
    print(f"seed {SEED}, {hand_overs.joined} joined, {hand_overs.left} left\n{findings.text()}")
    assert relay.starts == first.starts == 1
    assert findings.ok, findings.text()
    assert hand_overs.done == HAND_OVERS
    assert not any(errors.values()), errors
    assert set(hand_overs.statuses) == {0}
