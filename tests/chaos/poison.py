"""Hostile records, mixed one to one with good ones, on the commands and the reference topics; then the account must be
exact: every good record applied, every bad one answered or parked, nobody late, memory flat.

    python -m tests.chaos.poison --records 100000 --seed 7

Each organization and user has a compression codec of its own, so that every batch codec is there all the time. Good
commands and most bad ones are judged by the serial oracle; of reference records, which have no outcome, the tables and
the parked records are compared with what was sent. How late an outcome is, is its record's time less the command's:
one by the relay's clock, one by the broker's, which here are the same. The same seed sends the same records.
"""

import argparse
import asyncio
import json
import random
import secrets
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psutil

import org_local
from org_service.settings import Settings
from tests.chaos.log_corruption import LogCorruption
from tests.chaos.storm import fresh_settings
from tests.support import raw_batches
from tests.support.findings import Findings
from tests.support.hostile import BIG_BOMB, ROUGH, SPOILS, big_bomb, of_nobody
from tests.support.hostile_facts import BOMB_EVERY, CODECS, FEINTS, ROUGH_EVERY, Facts
from tests.support.observed import Observed, Record
from tests.support.partitioner import partition_of
from tests.support.processes import ServiceProcess, wait_for
from tests.support.published import Published
from tests.support.random_commands import RandomCommands
from tests.support.sending import Publisher, Sending, binary
from tests.support.system import System

AHEAD_MAX = 200
"""Commands published but not journaled: enough for batches, and for outcomes within a second on a busy machine."""
SETTLE_TIMEOUT_S = 120
SAMPLE_S = 0.1
ODD_NAMES = {"header names that are not UTF-8": ((r"\xff\xfe", b"v"), (r"\xff\xfe", None))}
""""As the service and `orgs tail` write them."""


class Codecs:
    """One publisher a codec; each organization always has the same, so its commands stay in order."""

    def __init__(self, servers: str, topic: str, partitions: int) -> None:
        self._servers, self._topic, self._partitions = servers, topic, partitions
        self._publishers = [
            Publisher(servers, topic, partitions=partitions, **{"compression.type": codec}) for codec in CODECS
        ]
        self._own: list[Published] = []
        self.rough: dict[tuple[int, int], Record] = {}
        """What was sent as bytes of our own, and how the service must read it."""

    def send(self, sending: Sending) -> None:
        """Hand one record over."""
        self._publishers[UUID(sending.org_id).int % len(CODECS)].send(sending)

    def append(self, sending: Sending, content: bytes, *names: tuple[str, bytes | None]) -> None:
        """Send a batch of one record; of the header names in it that are not UTF-8 say how they are written."""
        assert sending.key is not None
        partition = partition_of(sending.key, self._partitions)
        code, offset = asyncio.run(raw_batches.append(self._servers, self._topic, partition, content))
        assert code == 0
        value = sending.value if sending.command_id is not None else None
        headers = (*sending.headers, *names) if sending.command_id is not None else ()
        self.rough[partition, offset] = Record(self._topic, partition, offset, 0, sending.key, value, headers)
        body = (value or b"").decode("latin-1")
        self._own.append(Published(sending.command_id, sending.org_id, sending.type, 1, body, partition, offset))

    def flush(self) -> None:
        """Wait for all answers."""
        for each in self._publishers:
            each.flush()

    def close(self) -> None:
        """Give the connections back."""
        for each in self._publishers:
            each.close()

    @property
    def published(self) -> list[Published]:
        """The notes of all."""
        return [entry for each in self._publishers for entry in each.published] + self._own

    @property
    def records(self) -> list[Record]:
        """What the broker has."""
        return [record for each in self._publishers for record in each.records] + [*self.rough.values()]

    def tell(self, observed: Observed) -> None:
        """Put what was sent as bytes in the place of what the checker's client makes of it."""
        for number, record in enumerate(observed.commands):
            if (known := self.rough.get((record.partition, record.offset))) is not None:
                observed.commands[number] = replace(known, timestamp=record.timestamp)


class Memory:
    """Samples a process's resident memory until it is stopped."""

    def __init__(self, process: ServiceProcess) -> None:
        assert process.pid is not None
        self._process = psutil.Process(process.pid)
        self.samples: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[int, int]:
        """The peaks of the first third and of the last, in MB."""
        self._stop.set()
        self._thread.join()
        third = max(len(self.samples) // 3, 1)
        return max(self.samples[:third]) >> 20, max(self.samples[-third:]) >> 20

    def _run(self) -> None:
        while True:
            self.samples.append(self._process.memory_info().rss)
            if self._stop.wait(SAMPLE_S):
                return


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found."""

    findings: Findings
    late_s: float
    """The longest that an outcome took."""
    latest: str
    """Which one that was."""
    memory_mb: tuple[int, int]
    kinds: Mapping[str, int]
    errors: Sequence[Mapping[str, Any]]
    seconds: float
    sick: int
    """How often a partition could not be read for a while."""

    def text(self) -> str:
        """One screen."""
        memory = "worker memory {} MB in the first third, {} MB in the last".format(*self.memory_mb)
        lines = [
            self.findings.text(),
            f"the latest outcome took {self.late_s:.2f} s ({self.latest}); {memory}; {self.seconds:.0f} s",
        ]
        lines += [f"  {number:>7,}  {kind}" for kind, number in sorted(self.kinds.items())]
        return "\n".join(lines)


def run(
    stack: org_local.Stack,
    settings: Settings,
    folder: Path,
    *,
    records: int,
    orgs: int,
    seed: int,
    without: Sequence[str] = (),
) -> Outcome:
    """Send so many good records and as many bad ones, half of each to the reference topics, and judge.

    Raises:
        TimeoutError: The service stands still.
    """
    began = time.monotonic()
    kafka = settings.kafka
    with System(settings, folder) as system:
        system.publisher.close()
        codecs = Codecs(kafka.bootstrap_servers, system.topics.commands, kafka.partitions)
        system.publisher = codecs  # pyright: ignore[reportAttributeAccessIssue] - it does what is asked of one here
        facts = Facts(settings, seed, without)
        worker, relay = system.add("worker"), system.add("relay")
        worker.wait_until_ready()
        relay.wait_until_ready()
        memory = Memory(worker)
        corruption = LogCorruption(stack, worker, codecs, system.topics.commands)
        kinds = _send(system, codecs, facts, corruption, Plan(records // 2, orgs, seed, without))
        facts.flush()
        system.settle(SETTLE_TIMEOUT_S)
        wanted = facts.facts, facts.parked
        found: Any = None

        def settled() -> bool:
            nonlocal found
            found = asyncio.run(facts.read(system.database_url))
            return found == wanted

        with suppress(TimeoutError):  # the account says what differs
            wait_for(settled, "end of the reference data", SETTLE_TIMEOUT_S, 0.2)
        system.blind = {(system.topics.commands, *at) for at in codecs.rough}
        observed = system.observe()
        codecs.tell(observed)
        findings = system.check(observed)
        held = {name: len(each) for name, each in found[0].items()}
        findings.counts |= held | {"bad facts": len(facts.parked), "sick partitions": len(corruption.sick)}
        _compare(findings, wanted, found, facts.refused)
        peaks = memory.stop()
        for process in system.processes:
            findings.unless(process.terminate() == 0, "a process ended badly", lambda p=process: p.tail())
        lines = [line for process in system.processes for line in process.errors()]
        errors = [line for line in lines if not any(each in line["event"] for each in ("parked", "cannot be read"))]
        return Outcome(
            findings,
            *_latest(observed, corruption),
            peaks,
            kinds,
            errors,
            time.monotonic() - began,
            len(corruption.sick),
        )


class Plan(NamedTuple):
    """What to send."""

    commands: int
    orgs: int
    seed: int
    without: Sequence[str]


def _send(system: System, codecs: Codecs, facts: Facts, corruption: LogCorruption, plan: Plan) -> Counter[str]:
    """Send everything, no faster than it is decided; returns how often commands were spoiled in each way."""
    numbers = random.Random(
        f"what is spoiled {plan.seed}"
    )  # `RandomCommands` has the seed itself: ids would be the same
    spoils = {name: spoil for name, spoil in SPOILS.items() if name not in plan.without}
    rough = {name: make for name, make in ROUGH.items() if name not in plan.without}
    kinds: Counter[str] = Counter()
    known: set[str] = set()
    for number, sending in enumerate(RandomCommands(plan.seed, plan.orgs).commands(plan.commands)):
        codecs.send(sending)
        command_id = str(UUID(int=numbers.getrandbits(128), version=4))
        body = binary(command_id, "org.update", sending.org_id, name=f"N {number}")
        if number % BOMB_EVERY == 3:
            name, bad = BIG_BOMB, replace(of_nobody(body), command_id=None)
            codecs.append(bad, big_bomb(bad))
        elif number % ROUGH_EVERY == 7 and rough:
            name, bad = list(rough)[number // ROUGH_EVERY % len(rough)], of_nobody(body)
            codecs.append(bad, rough[name](bad), *ODD_NAMES.get(name, ()))
        else:
            name = numbers.choice(list(spoils))
            bad = spoils[name](body)
            codecs.send(bad)
        known |= {each for each in (sending.command_id, bad.command_id) if each is not None}
        kinds[name] += 1
        facts.send(number)
        if number % 1_000 == 500:
            facts.abort()
        corruption.step(number)
        if number % 20 == 0 and not corruption.frozen:
            least = len(known) - AHEAD_MAX
            wait_for(lambda least=least: system.head() > least, "progress", SETTLE_TIMEOUT_S)
    corruption.repair()
    return kinds


def _compare(findings: Findings, wanted: Any, found: Any, refused: Sequence[str]) -> None:
    for error in refused:
        findings.add("the broker took a reference record not", error)
    pairs = [(f"a row of {name}", {*rows.items()}, {*found[0][name].items()}) for name, rows in wanted[0].items()]
    for what, should, has in [*pairs, ("a parked reference record", wanted[1], found[1])]:
        for each in sorted(should ^ has):
            findings.add(f"{what} is {'missing' if each in should else 'too much'}", str(each))


def _latest(observed: Observed, corruption: LogCorruption) -> tuple[float, str]:
    """The longest time between a command's record and that of its result, where its partition could be read.

    Not counted is the time in which the worker was frozen.
    """
    sent: dict[str, Record] = {}
    for record in observed.commands:
        command_id = dict(record.headers).get("ce_id")
        waits = any(
            record.partition == at and since <= record.timestamp <= until for at, since, until in corruption.sick
        )
        if command_id is not None and not waits:
            sent.setdefault(command_id.decode(errors="replace"), record)
    late = [(0, "")]
    for record in observed.results:
        if record.marker is not None:
            command = sent.get(json.loads(record.value or b"{}")["command_id"])
            if command is not None:
                place = f"partition {command.partition}, offset {command.offset}, at {command.timestamp}"
                frozen_ms = sum(
                    max(0, min(until, record.timestamp) - max(since, command.timestamp))
                    for since, until in corruption.frozen_ms
                )
                late.append((record.timestamp - command.timestamp - frozen_ms, place))
    longest, place = max(late)
    return longest / 1000, place


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Returns 0 when the account is exact, nobody late and memory flat."""
    parser = argparse.ArgumentParser(description="Mix hostile records with good ones; check the account.")
    parser.add_argument(
        "--records", type=int, default=100_000, help="good ones, and as many bad ones; half of them commands"
    )
    parser.add_argument("--orgs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--late-max", type=float, default=1.0, help="seconds that an outcome may take")
    parser.add_argument(
        "--growth-max", type=int, default=64, help="MB that the worker's memory may grow from first to last third"
    )
    parser.add_argument("--without", action="append", default=[], choices=sorted(SPOILS.keys() | FEINTS.keys()))
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    with (
        tempfile.TemporaryDirectory(prefix="orgs-poison-") as folder,
        org_local.start() as stack,
        fresh_settings(stack) as settings,
    ):
        outcome = run(
            stack,
            settings,
            Path(folder),
            records=options.records,
            orgs=options.orgs,
            seed=seed,
            without=options.without,
        )
    print(outcome.text())
    for line in outcome.errors[:3]:
        print(f"logged: {str(line)[:500]}")
    first, last = outcome.memory_mb
    held = {
        "exact": outcome.findings.ok and not outcome.errors,
        "nobody late": outcome.late_s <= options.late_max,
        "memory flat": last - first <= options.growth_max,
    }
    verdict = ", ".join(f"{name}: {'yes' if ok else 'NO'}" for name, ok in held.items())
    print(f"poison: {verdict}; {options.records:,} good and as many bad records, seed {seed}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
