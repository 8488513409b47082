"""Three brokers, each killed in turn while commands flow: what all copies have is never lost, nor done twice."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import org_local
from tests.chaos import losses
from tests.chaos.storm import fresh_settings
from tests.support.processes import ServiceProcess
from tests.support.random_commands import RandomCommands
from tests.support.sending import Sending
from tests.support.system import System
from tests.support.waiting import POLL_S

BROKERS = 3
HEAP_MB = 256
"""Three of them share a small machine with everything else."""
COMMANDS = 4_200
ORGANIZATIONS = 300
SEED = 20_300_104
AHEAD_MAX = 1_000
"""Commands published but not journaled: a broker that is lost always has some in flight."""
SHARE = COMMANDS // (2 * BROKERS + 1)
"""Of the commands, journaled before the next step: kill, start again, kill …"""
STALL_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 60


class Outages:
    """Kills each broker and starts it again, one small step at each call, none of which waits."""

    def __init__(self, stack: org_local.Stack, system: System) -> None:
        self._brokers = list(stack.kafka.brokers)
        self._system = system
        self._steps = self._plan()
        self.done = 0
        """Kills and starts that are over."""

    def step(self, head: int) -> None:
        """Go on, if the journal has gone on far enough since the last step."""
        if head >= SHARE * (self.done + 1):
            next(self._steps, None)

    @property
    def over(self) -> bool:
        """Whether every broker was killed and is back."""
        return self.done == 2 * len(self._brokers)

    def _plan(self) -> Iterator[None]:
        for broker in self._brokers:
            # On a starved machine brokers fall behind; who kills the only one that has all makes an outage, not a loss.
            while not self._system.all_in_sync():
                yield
            broker.kill()
            self.done += 1
            yield
            starting = threading.Thread(target=broker.start)
            starting.start()
            while starting.is_alive():
                yield
            starting.join()
            assert broker.running
            self.done += 1
            yield


def flow(system: System, sendings: Iterator[Sending], outages: Outages) -> None:
    """Publish everything, never far ahead of the journal, while brokers come and go."""
    known: set[str] = set()
    last, moved = -1, time.monotonic()
    sending = next(sendings, None)
    while sending is not None or not outages.over:
        head = system.head()
        if head != last:
            last, moved = head, time.monotonic()
        assert time.monotonic() < moved + STALL_TIMEOUT_S, tails(system.processes)
        while sending is not None and len(known) < head + AHEAD_MAX:
            if sending.command_id is not None:
                known.add(sending.command_id)
            system.publisher.send(sending)
            sending = next(sendings, None)
        outages.step(head)
        time.sleep(POLL_S)


def tails(processes: list[ServiceProcess]) -> str:
    return "\n".join(process.tail() for process in processes)


@pytest.fixture(scope="module")
def three_brokers() -> Iterator[org_local.Stack]:
    with org_local.start(brokers=BROKERS, kafka_heap_mb=HEAP_MB) as stack:
        yield stack


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(300)
def test_each_of_three_brokers_may_be_lost_while_commands_flow(three_brokers: org_local.Stack, tmp_path: Path) -> None:
    began = time.monotonic()
    with fresh_settings(three_brokers) as settings, System(settings, tmp_path) as system:
        processes = [system.add("worker"), system.add("relay")]
        outages = Outages(three_brokers, system)
        flow(system, RandomCommands(SEED, ORGANIZATIONS).commands(COMMANDS), outages)
        print(f"{time.monotonic() - began:.1f} s: settling")
        system.settle(SETTLE_TIMEOUT_S)
        found = {name: value for process in processes for name, value in process.metrics().items()}
        statuses = [process.terminate() for process in processes]
        findings = system.check(kafka_was_away=True)
        # The client says so of each connection to a broker that is away.
        errors = {process.name: process.errors("aiokafka") for process in processes}
    print(f"{time.monotonic() - began:.1f} s, seed {SEED}\n{findings.text()}")
    assert findings.ok, findings.text()
    assert outages.over
    assert statuses == [0, 0]
    assert not any(errors.values()), errors
    # Another leader alone is no loss.
    assert not {
        name: value for name, value in found.items() if value and ("_losses_total" in name or "_lost_total" in name)
    }


@pytest.mark.chaos
@pytest.mark.integration
@pytest.mark.timeout(180)
def test_what_an_unclean_election_loses_is_noticed_and_healed(three_brokers: org_local.Stack) -> None:
    """Of all topics at once, a third of their partitions."""
    outcome = losses.run("election", 1, SEED, three_brokers)
    print(outcome.text())
    assert outcome.ok, outcome.text()
