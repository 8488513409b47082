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
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import psutil
from confluent_kafka import KafkaError, Message, Producer

import org_local
from org_service.settings import Settings
from tests.chaos.storm import fresh_settings
from tests.support.arena import Arena
from tests.support.crowd import Crowd
from tests.support.findings import Findings
from tests.support.hostile import FEINTS, HEADER_BYTES, SPOILS, Fact, Feint, membership
from tests.support.observed import LOG_LEVEL, Observed, Record
from tests.support.processes import ServiceProcess, wait_for
from tests.support.published import Published
from tests.support.sending import Publisher, Sending, binary

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
AHEAD_MAX = 400
"""Commands published but not journaled: enough for batches, few enough for an outcome within a second."""
SETTLE_TIMEOUT_S = 120
SAMPLE_S = 0.1
ROLES = ("admin", "support", "cloud_rep", "user", "restricted_user")


class Codecs:
    """One publisher a codec; each organization always has the same, so its commands stay in order."""

    def __init__(self, servers: str, topic: str) -> None:
        self._publishers = [Publisher(servers, topic, **{"compression.type": codec}) for codec in CODECS]

    def send(self, sending: Sending) -> None:
        """Hand one record over."""
        self._publishers[UUID(sending.org_id).int % len(CODECS)].send(sending)

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
        return [entry for each in self._publishers for entry in each.published]

    @property
    def records(self) -> list[Record]:
        """What the broker has."""
        return [record for each in self._publishers for record in each.records]


class Memberships:
    """Good and bad memberships, and what must have become of them."""

    def __init__(self, settings: Settings, seed: int, feints: Sequence[Feint]) -> None:
        servers = settings.kafka.bootstrap_servers
        common: dict[str, Any] = {
            "bootstrap.servers": servers, "log_level": LOG_LEVEL, "partitioner": "murmur2_random", "linger.ms": 2
        }  # fmt: skip
        self._producers = [Producer(common | {"compression.type": codec}) for codec in CODECS]
        self._aborting = Producer(common | {"transactional.id": f"{settings.kafka.topic_prefix}poison"})
        self._aborting.init_transactions(30)
        self._topic = settings.kafka.topics.memberships
        self._partitions = settings.kafka.partitions
        self._random = random.Random(seed)
        self._feints = feints
        self._org_id = str(UUID(int=self._random.getrandbits(128), version=4))
        self.roles: dict[str, str] = {}
        """What the table must hold, by user."""
        self.parked: set[tuple[int, int]] = set()
        """The coordinates of bad ones."""
        self.refused: list[str] = []

    def send(self) -> None:
        """One good record and a bad one."""
        user, role = f"user-{self._random.randrange(5_000)}", self._random.choice(ROLES)
        key = f"{user}:{self._org_id}".encode()
        odd = (("x-odd", b"\xff\xfe"), ("x-null", None), ("x-big", b"\xfe" * self._random.choice((0, HEADER_BYTES))))
        value = None if self._random.random() < 0.2 else json.dumps(membership(user, self._org_id, role)).encode()
        self.roles.pop(user, None)
        if value is not None:
            self.roles[user] = role
        codec = int(user[5:]) % len(CODECS)
        self._produce(codec, Fact(key, value, headers=odd), bad=False)
        self._produce(codec, self._random.choice(self._feints)(user, self._org_id, key, self._partitions), bad=True)

    def abort(self) -> None:
        """Make everybody an admin, and take it back."""
        self._aborting.begin_transaction()
        for number in range(20):
            user = f"user-{number}"
            value = json.dumps(membership(user, self._org_id, "admin")).encode()
            self._aborting.produce(self._topic, value, f"{user}:{self._org_id}".encode())
        self._aborting.flush(30)
        self._aborting.abort_transaction(30)

    def flush(self) -> None:
        """Wait for all answers."""
        for each in self._producers:
            assert each.flush(60) == 0

    def _produce(self, codec: int, fact: Fact, *, bad: bool) -> None:
        def answered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self.refused.append(str(error))
            elif bad:
                self.parked.add((message.partition() or 0, message.offset() or 0))

        producer = self._producers[codec]
        producer.produce(self._topic, fact.value, fact.key, fact.partition, answered, headers=list(fact.headers))
        producer.poll(0)

    async def read(self, database_url: str) -> tuple[dict[str, str], set[tuple[int, int]]]:
        """What the table holds, and which records are parked."""
        conn = await asyncpg.connect(database_url)
        try:
            roles = dict(await conn.fetch("SELECT user_id, role FROM membership"))
            parked = await conn.fetch('SELECT partition, "offset" FROM parked WHERE topic = $1', self._topic)
        finally:
            await conn.close()
        return roles, {(row["partition"], row["offset"]) for row in parked}


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
    memory_mb: tuple[int, int]
    kinds: Mapping[str, int]
    errors: Sequence[Mapping[str, Any]]
    seconds: float

    def text(self) -> str:
        """One screen."""
        memory = "worker memory {} MB in the first third, {} MB in the last".format(*self.memory_mb)
        lines = [self.findings.text(), f"the latest outcome took {self.late_s:.2f} s; {memory}; {self.seconds:.0f} s"]
        lines += [f"  {number:>7,}  {kind}" for kind, number in sorted(self.kinds.items())]
        return "\n".join(lines)


def run(
    settings: Settings, folder: Path, *, records: int, orgs: int, seed: int, without: Sequence[str] = ()
) -> Outcome:
    """Send so many good records and as many bad ones, half of each to the reference topics, and judge.

    Raises:
        TimeoutError: The service stands still.
    """
    began = time.monotonic()
    numbers = random.Random(seed)
    spoils = {name: spoil for name, spoil in SPOILS.items() if name not in without}
    kinds: Counter[str] = Counter()
    with Arena(settings, folder) as arena:
        arena.publisher.close()
        codecs = Codecs(settings.kafka.bootstrap_servers, arena.topics.commands)
        arena.publisher = codecs  # pyright: ignore[reportAttributeAccessIssue] - it does what is asked of one here
        members = Memberships(settings, seed, [each for name, each in FEINTS.items() if name not in without])
        worker, relay = arena.add("worker"), arena.add("relay")
        worker.wait_until_ready()
        relay.wait_until_ready()
        memory = Memory(worker)
        known: set[str] = set()
        for number, good in enumerate(Crowd(seed, orgs).commands(records // 2)):
            name = numbers.choice(list(spoils))
            body = binary(
                str(UUID(int=numbers.getrandbits(128), version=4)), "org.update", good.org_id, name=f"N {number}"
            )
            for sending in (good, spoils[name](body)):
                codecs.send(sending)
                if sending.command_id is not None:
                    known.add(sending.command_id)
            kinds[name] += 1
            members.send()
            if number % 1_000 == 500:
                members.abort()
            if number % 20 == 0:
                least = len(known) - AHEAD_MAX
                wait_for(lambda least=least: arena.head() > least, "progress", SETTLE_TIMEOUT_S)
        members.flush()
        arena.settle(SETTLE_TIMEOUT_S)
        wanted = members.roles, members.parked
        found: Any = None

        def settled() -> bool:
            nonlocal found
            found = asyncio.run(members.read(arena.database_url))
            return found == wanted

        with suppress(TimeoutError):  # the account says what differs
            wait_for(settled, "end of the reference data", SETTLE_TIMEOUT_S, 0.2)
        observed = arena.observe()
        findings = arena.check(observed)
        findings.counts |= {"memberships": len(found[0]), "bad memberships": len(members.parked)}
        _compare(findings, wanted, found, members.refused)
        peaks = memory.stop()
        for process in arena.processes:
            findings.unless(process.terminate() == 0, "a process ended badly", lambda p=process: p.tail())
        errors = [line for process in arena.processes for line in process.errors() if "parked" not in line["event"]]
        return Outcome(findings, _late_s(observed), peaks, kinds, errors, time.monotonic() - began)


def _compare(findings: Findings, wanted: Any, found: Any, refused: Sequence[str]) -> None:
    for error in refused:
        findings.add("the broker took a reference record not", error)
    for what, should, has in zip(("a membership", "a parked reference record"), wanted, found, strict=True):
        rows = (set(should.items()), set(has.items())) if isinstance(should, dict) else (should, has)
        for each in sorted(rows[0] ^ rows[1]):
            findings.add(f"{what} is {'missing' if each in rows[0] else 'too much'}", str(each))


def _late_s(observed: Observed) -> float:
    """The longest time between a command's record and that of its first result."""
    sent: dict[str, int] = {}
    for record in observed.commands:
        command_id = dict(record.headers).get("ce_id")
        if command_id is not None:
            sent.setdefault(command_id.decode(errors="replace"), record.timestamp)
    late = [0]
    for record in observed.results:
        if record.marker is not None:
            at = sent.get(json.loads(record.value or b"{}")["command_id"])
            late.append(0 if at is None else record.timestamp - at)
    return max(late) / 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Returns 0 when the account is exact, nobody late and memory flat."""
    parser = argparse.ArgumentParser(description="Mix hostile records with good ones; check the account.")
    parser.add_argument(
        "--records", type=int, default=20_000, help="good ones, and as many bad ones; half of them commands"
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
            settings, Path(folder), records=options.records, orgs=options.orgs, seed=seed, without=options.without
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
