"""Commands flow while workers and the leading relay are killed at random; then the account must be exact.

    python -m tests.chaos.storm --commands 10000 --kills 20 --orgs 500 --seed 7

Two relays run, so that a follower takes over from the killed leader while that one starts again and is the follower
then; and two workers, so that what one had in flight goes to another one that is alive. The same seed sends the same
commands and kills the same roles at the same places of the journal (a place is reached a few milliseconds sooner or
later, so runs differ where it matters). What is published runs ahead of the journal, and of the next kill, by a bounded
number of commands, so every kill hits while there is work in flight. A killed process is started again at once, and is
not killed again before it has done some work. SIGKILL excuses nobody: the killed ones say no more, and for the others
the loss of a neighbour is no error, so nobody may log one.
"""

import argparse
import asyncio
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from pydantic import SecretStr

import org_local
from org_service.settings import AuthSettings, DatabaseSettings, KafkaSettings, RelaySettings, Settings, WorkerSettings
from tests.support.findings import Findings
from tests.support.processes import Role, ServiceProcess, environment
from tests.support.random_commands import RandomCommands
from tests.support.sending import Sending
from tests.support.system import System, rows_of
from tests.support.verified import find_differences
from tests.support.waiting import POLL_S

AHEAD_MAX = 2_500
"""Commands published but not journaled: enough for ten batches, so that a kill finds work."""
BATCH_RECORDS_MAX = 250
RELAY_ROWS_MAX = 200
"""Small batches make many commits, and so many moments to be killed between them; large enough for two lanes."""
JITTER_S = 0.03
"""A kill comes up to this much after its place was seen: a batch takes about as long."""
SESSION_TIMEOUT_MS = 6_000
"""The least a broker allows by default: this long the group waits for a killed worker."""
RELAYS = 2
"""A leader and a follower."""
WORKERS = 2
LOOK_INTERVAL_S = 0.05
"""Between two looks at the metrics, while nobody is to be killed yet: they cost the process some milliseconds."""
LEADS = "orgs_relay_leader"
WORKED: dict[Role, str] = {"worker": "orgs_worker_batch_seconds_count", "relay": "orgs_relay_rows_total"}
"""What a process counts since it was started, when it does what it is there for."""
STALL_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill `role` when the journal has reached `position`, a little later."""

    position: int
    role: Role
    delay_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a storm did and found."""

    findings: Findings
    kills: dict[str, int]
    statuses: dict[str, int]
    """Exit statuses after SIGTERM, at the end, by process."""
    errors: dict[str, list[dict[str, Any]]]
    """Lines that a process logged as errors, by process."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the account is exact and everybody ended in good order."""
        return self.findings.ok and not any(self.statuses.values()) and not any(self.errors.values())


def storm_settings(settings: Settings) -> Settings:
    """`settings` with small batches and quick recovery."""
    worker = settings.worker.model_copy(
        update={"batch_records_max": BATCH_RECORDS_MAX, "session_timeout_ms": SESSION_TIMEOUT_MS, "port": 0}
    )
    relay = settings.relay.model_copy(update={"batch_rows_max": RELAY_ROWS_MAX, "port": 0})
    return settings.model_copy(update={"worker": worker, "relay": relay})


def plan(rows: int, kills: int, seed: int) -> list[Kill]:
    """Spread kills over the journal, both roles in turn, none in the last twentieth.

    In turn, because a role must have worked before it is killed again: one comes back while the other works.
    """
    numbers = random.Random(seed)
    turns: list[Role] = ["worker", "relay"]
    numbers.shuffle(turns)
    roles: list[Role] = [turns[number % 2] for number in range(kills)]
    share = rows * 0.95 / max(kills, 1)
    places = [int((place + numbers.uniform(0.2, 0.8)) * share) for place in range(kills)]
    return [Kill(place, role, numbers.uniform(0, JITTER_S)) for place, role in zip(places, roles, strict=True)]


class Storm:
    """Publishes and kills until both are done."""

    def __init__(
        self, system: System, sendings: Sequence[Sending], kills: Sequence[Kill], *, workers: int = WORKERS
    ) -> None:
        self._system = system
        self._sendings = sendings
        self._kills = list(kills)
        self._rows = rows_of(sendings)
        self._kept_back = self._rows // (2 * len(kills) + 2)
        """Commands that each kill but the next one still has to itself, however late that one comes."""
        self._workers = workers
        self._processes: list[ServiceProcess] = []
        """The next to be killed first, among those of a role."""
        self._known: set[str] = set()
        self._began = time.monotonic()

    def run(self) -> Outcome:
        """Do everything, to the verdict.

        Raises:
            TimeoutError: The journal or the relay stands still, though nobody is being killed.
        """
        numbers: dict[Role, int] = {"worker": self._workers, "relay": RELAYS}
        for role, number in numbers.items():
            self._processes += (self._system.add(role, f"{role}-{each}") for each in range(1, number + 1))
        self._flow()
        self._say("settling")
        self._system.settle(SETTLE_TIMEOUT_S)
        for process in self._processes:
            process.wait_until_ready()  # before that a SIGTERM may meet Python itself, which doesn't drain
        statuses = {process.name: process.terminate() for process in self._processes}
        self._say("checking")
        findings = self._system.check()
        for each in asyncio.run(find_differences(self._system.settings)):
            findings.add(f"orgs verify: {each.kind}", f"{each.subject} at position {each.position}")
        kills: dict[str, int] = {role: sum(process.kills for process in self._of(role)) for role in numbers}
        errors = {process.name: process.errors() for process in self._processes}
        return Outcome(findings, kills, statuses, errors, time.monotonic() - self._began)

    def _flow(self) -> None:
        waiting = iter(self._sendings)
        head, moved = -1, time.monotonic()
        sent_all = False
        while self._kills or not sent_all:
            now = self._system.head()
            if now != head:
                head, moved = now, time.monotonic()
            elif time.monotonic() - moved > STALL_TIMEOUT_S:
                raise TimeoutError(f"the journal has stood at {head} for {STALL_TIMEOUT_S} s:\n{self._tails()}")
            sent_all = sent_all or self._publish(waiting, head)
            if not self._kills or head < self._kills[0].position:
                time.sleep(POLL_S / 5)
            elif victim := self._victim(self._kills[0].role):
                self._kill(victim, self._kills.pop(0))
            else:
                time.sleep(LOOK_INTERVAL_S)

    def _publish(self, waiting: Iterator[Sending], head: int) -> bool:
        """Publish up to a bounded number of commands ahead. Returns whether nothing is left.

        Where a kill is late, because nobody was ready to be killed, the journal doesn't run to its end meanwhile: who
        takes over must have something to do, or it will never have worked, and never be killed.
        """
        limit = AHEAD_MAX + min(head, self._kills[0].position if self._kills else head)
        if len(self._kills) > 1:
            limit = min(limit, self._rows - self._kept_back * (len(self._kills) - 1))
        while len(self._known) < limit:
            sending = next(waiting, None)
            if sending is None:
                return True
            if sending.command_id is not None:
                self._known.add(sending.command_id)
            self._system.publisher.send(sending)
        return False

    def _victim(self, role: Role) -> ServiceProcess | None:
        """The relay that leads, or the worker that was spared the longest; None before it has done some work."""
        for process in self._of(role):
            try:
                metrics = process.metrics()
            except OSError:  # it is starting
                continue
            if metrics.get(WORKED[role], 0) > 0 and (role == "worker" or metrics.get(LEADS) == 1):
                return process
        return None

    def _kill(self, process: ServiceProcess, kill: Kill) -> None:
        time.sleep(kill.delay_s)
        process.kill()
        process.start()
        self._processes.remove(process)
        self._processes.append(process)
        self._say(f"killed {process.name} at position {self._system.head():,}, {len(self._kills)} kills to come")

    def _of(self, role: Role) -> list[ServiceProcess]:
        return [process for process in self._processes if process.role == role]

    def _tails(self) -> str:
        return "\n".join(process.tail() for process in self._processes)

    def _say(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {text}", file=sys.stderr, flush=True)


@contextmanager
def fresh_settings(stack: org_local.Stack, **kafka: Any) -> Generator[Settings]:
    """A database and topics of this run's own, made the way an operator makes them."""
    run = f"storm{secrets.token_hex(4)}"
    server = stack.database_url.rpartition("/")[0]
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=f"{run}.", **kafka),
        database=DatabaseSettings(url=SecretStr(f"{server}/{run}")),
        worker=WorkerSettings(port=0),
        relay=RelaySettings(port=0),
        auth=AuthSettings(commands="trusted"),
    )
    asyncio.run(_execute(f"{server}/postgres", f"CREATE DATABASE {run}"))
    try:
        for arguments in (["migrate"], ["topics", "apply"]):
            command = [sys.executable, "-m", "org_service.cli", *arguments]
            subprocess.run(command, env=environment(settings), check=True, stdout=subprocess.DEVNULL)
        yield settings
    finally:
        asyncio.run(_execute(f"{server}/postgres", f"DROP DATABASE {run} WITH (FORCE)"))


async def _execute(database_url: str, statement: str) -> None:
    conn = await asyncpg.connect(database_url)
    await conn.execute(statement)
    await conn.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a storm. Returns 0 when the account is exact."""
    parser = argparse.ArgumentParser(description="Kill workers and relays while commands flow; check the account.")
    parser.add_argument("--commands", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=20, help="half of them hit a worker, half the leading relay")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--orgs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    sendings = list(RandomCommands(seed, options.orgs).commands(options.commands))
    kills = plan(rows_of(sendings), options.kills, seed)
    with (
        tempfile.TemporaryDirectory(prefix="orgs-storm-") as folder,
        org_local.start() as stack,
        fresh_settings(stack) as settings,
        System(storm_settings(settings), Path(folder)) as system,
    ):
        outcome = Storm(system, sendings, kills, workers=options.workers).run()
    print(outcome.findings.text())
    for name, lines in outcome.errors.items():
        print(*(f"{name} logged: {line}" for line in lines), sep="\n", end="")
    print(
        f"storm: {'exact' if outcome.ok else 'NOT EXACT'}, {len(sendings):,} commands, "
        f"{outcome.kills['worker']} worker and {outcome.kills['relay']} relay kills, "
        f"exit statuses {outcome.statuses}, {outcome.seconds:.0f} s, seed {seed}"
    )
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
