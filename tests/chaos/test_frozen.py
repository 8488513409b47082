"""Processes freeze while commands flow: for so long that others take over, or all of them and the servers now and then,
as on a machine that has far too much to do."""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import org_local
from org_service.settings import Settings
from org_service.store.leader import SILENCE_MAX_S
from tests.chaos.storm import LEADS, WORKED
from tests.support.processes import Role, ServiceProcess
from tests.support.random_commands import RandomCommands
from tests.support.sending import Sending
from tests.support.system import System
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(180)]

ROLES: tuple[Role, ...] = ("worker", "relay")
COMMANDS = 12_000
ORGANIZATIONS = 300
BATCH_MAX = 250
SEED = 20_300_105
SESSION_TIMEOUT_MS = 6_000
"""Of a worker, the least a broker takes."""
STATEMENT_TIMEOUT_S = 8
"""So long a frozen worker may keep the lock on the journal."""
TAKE_OVER_S = SILENCE_MAX_S + 5
SETTLE_TIMEOUT_S = 60
FREEZES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 7.0)
"""The longest is longer than a session, shorter than what a statement may take."""
LIKELY = 0.3
"""That somebody freezes, at each step."""
STEPS = 80
STEP_COMMANDS = 25
STEP_S = 0.05


def test_a_process_that_resumes_after_a_takeover_does_nothing_twice(settings: Settings, tmp_path: Path) -> None:
    sendings = RandomCommands(SEED, ORGANIZATIONS).commands(COMMANDS)
    with System(restless(settings), tmp_path) as system:
        processes = [system.add(role, f"{role}-{each}") for role in ROLES for each in (1, 2)]
        for process in processes:
            process.wait_until_ready()
        publish(system, sendings, COMMANDS // 3)
        frozen = [wait_for_working(processes, role) for role in ROLES]
        for process in frozen:
            process.freeze()
        began = time.monotonic()
        awake = [process for process in processes if process not in frozen]
        publish(system, sendings, COMMANDS // 3)
        wait_for(lambda: any(leads(process) for process in awake), "another leader", TAKE_OVER_S)
        took_over_s = time.monotonic() - began
        system.settle(SETTLE_TIMEOUT_S)
        publish(system, sendings, COMMANDS // 3)
        for process in frozen:
            process.thaw()
        system.settle(SETTLE_TIMEOUT_S)
        for process in frozen:
            process.wait_until_ready()
        leaders = [process.name for process in processes if leads(process)]
        statuses = [process.terminate() for process in processes]
        findings = system.check()
        # Whoever was frozen finds connections closed, and time-outs long past; and where the relay froze inside a
        # transaction, that is open until another one leads, which is said after half of this time.
        expected = ("aiokafka", "asyncio", "org_service.kafka.transactions")
        errors = {process.name: process.errors(*expected) for process in processes}
    print(f"seed {SEED}, another relay led after {took_over_s:.1f} s\n{findings.text()}", errors, sep="\n")
    assert findings.ok, findings.text()
    assert len(leaders) == 1
    assert leaders[0] in {process.name for process in awake}
    assert statuses == [0] * len(processes)
    assert not any(errors.values()), errors


@pytest.mark.parametrize("seed", [20_300_106])
def test_freezes_of_everybody_at_random_lose_and_double_nothing(
    settings: Settings, stack: org_local.Stack, tmp_path: Path, seed: int
) -> None:
    sendings = RandomCommands(seed, ORGANIZATIONS).commands(STEPS * STEP_COMMANDS)
    with System(restless(settings), tmp_path) as system:
        processes = {role: system.add(role) for role in ROLES}
        pids: dict[str, Callable[[], Sequence[int]]] = {"kafka": stack.kafka.pids, "postgres": stack.postgres.pids}
        pids |= {role: lambda process=process: [process.pid or 0] for role, process in processes.items()}
        freezer = Freezer(random.Random(seed), pids)
        try:
            for _ in range(STEPS):
                publish(system, sendings, STEP_COMMANDS)
                freezer.step()
                time.sleep(STEP_S)
        finally:
            freezer.thaw()
        system.settle(SETTLE_TIMEOUT_S)
        assert all(process.running for process in processes.values())
        findings = system.check(kafka_was_away=True)
    print(f"seed {seed}, frozen: {', '.join(freezer.frozen)}\n{findings.text()}")
    assert findings.ok, findings.text()
    assert {each.split(" ")[0] for each in freezer.frozen} == set(pids)


class Freezer:
    """Freezes parts at random, each for a random time, several at once now and then."""

    def __init__(self, numbers: random.Random, parts: Mapping[str, Callable[[], Sequence[int]]]) -> None:
        self._numbers = numbers
        self._parts = parts
        self._until_s: dict[str, tuple[float, list[psutil.Process]]] = {}
        self.frozen: list[str] = []
        """Who, and for how many seconds."""

    def step(self) -> None:
        """Thaw whose time is up, and freeze one more, or none."""
        now_s = time.monotonic()
        self.thaw(lambda until_s: now_s >= until_s)
        name, length_s = self._numbers.choice(list(self._parts)), self._numbers.choice(FREEZES_S)
        if name in self._until_s or self._numbers.random() > LIKELY:
            return
        processes = [psutil.Process(pid) for pid in self._parts[name]() if psutil.pid_exists(pid)]
        self._until_s[name] = now_s + length_s, processes
        self.frozen.append(f"{name} {length_s}")
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # one of Postgres's ends with its connection
                process.suspend()

    def thaw(self, due: Callable[[float], bool] = lambda _: True) -> None:
        """Thaw everybody who is due."""
        for name in [name for name, (until_s, _) in self._until_s.items() if due(until_s)]:
            for process in self._until_s.pop(name)[1]:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


def restless(settings: Settings) -> Settings:
    """Small batches, so that there is always work in flight, and short time-outs for silent servers."""
    worker = settings.worker.model_copy(
        update={"batch_records_max": BATCH_MAX, "session_timeout_ms": SESSION_TIMEOUT_MS}
    )
    relay = settings.relay.model_copy(update={"batch_rows_max": BATCH_MAX})
    database = settings.database.model_copy(update={"statement_timeout_s": STATEMENT_TIMEOUT_S})
    return settings.model_copy(update={"worker": worker, "relay": relay, "database": database})


def publish(system: System, sendings: Iterator[Sending], number: int) -> None:
    for _ in range(number):
        system.publisher.send(next(sendings))


def leads(process: ServiceProcess) -> bool:
    return process.metrics().get(LEADS) == 1


def wait_for_working(processes: list[ServiceProcess], role: Role) -> ServiceProcess:
    """Wait for a process of this role that has begun to work; for a relay, the one that leads."""
    found: list[ServiceProcess] = []

    def one_works() -> bool:
        found[:] = [each for each in processes if each.role == role and each.metrics().get(WORKED[role], 0) > 0]
        return bool(found)

    wait_for(one_works, f"work of a {role}", SETTLE_TIMEOUT_S)
    return found[0]
