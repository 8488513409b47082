"""Commands flow while Kafka loses what it had acknowledged; then everything must be as if it had not.

    python -m tests.chaos.losses --times 20 --seed 7 --kinds events election

For each kind of topic, and for all of them at once, so many times: the broker is stopped while there is work in flight,
the last batches of some partitions are taken out of its files, and it starts again. And by unclean elections of three
brokers (`election`), of all topics at once: `tests/support/elections.py`. After each, when all is done again, `orgs
verify` must find nothing; in the end the independent checker.

Who published commands or facts that were lost sends them again, as nobody else has them: the worker must have said so
of those that it had read. What a worker wrote to `orgs.results` stays: a reply to a duplicate is nobody's to send again
but the publisher's. So while elections take all that comes last there are no duplicates.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import org_local
from org_service.settings import Settings
from tests.chaos.storm import fresh_settings, storm_settings
from tests.support.elections import COPIES, Elections
from tests.support.fact_flow import FACTS_SQL, FactFlow, read_facts
from tests.support.findings import Findings
from tests.support.log_faults import cut_last
from tests.support.lost_commands import LostCommands
from tests.support.partitioner import partition_of
from tests.support.random_commands import RandomCommands
from tests.support.sending import Sending
from tests.support.system import System
from tests.support.verified import find_differences
from tests.support.waiting import POLL_S, wait_for

PUBLISHED: Final = ("events", "state", "results", "relay")
FACTS: Final = ("memberships", "partnerships", "staff")
TOPICS: Final = (*PUBLISHED, "commands", *FACTS)
KINDS: Final = (*TOPICS, "all", "election")
COMMANDS: Final = 300
"""Between two losses."""
LAST_COMMANDS: Final = 60
"""Sent right before a loss: some of them no worker has read."""
FACTS_EACH: Final = 5
"""Of each kind, between two losses."""
ORGANIZATIONS: Final = 100
BATCHES_MAX: Final = 6
"""That a partition loses at once: three transactions and their markers."""
PARTITIONS_MAX: Final = 4
"""Of a topic, that lose at once."""
BROKERS: Final = 3
HEAP_MB: Final = 256
"""Of each broker: three of them share a small machine with everything else."""
SOON_AGAIN: Final = 0.3
"""How often another loss comes while the last one is being healed."""
STALL_TIMEOUT_S: Final = 60
SETTLE_TIMEOUT_S: Final = 120

Place = tuple[str, int]
"""Topic and partition."""


@dataclass
class Outcome:
    """What was lost of one kind, and what became of it."""

    kind: str
    losses: int = 0
    cut: Counter[str] = field(default_factory=Counter[str])
    """Partitions that lost something, by topic."""
    unnoticed: list[str] = field(default_factory=list[str])
    """What a worker had read and didn't miss."""
    verified: int = 0
    """How often nothing differed."""
    differences: list[str] = field(default_factory=list[str])
    findings: Findings = field(default_factory=Findings)
    found: dict[str, float] = field(default_factory=dict[str, float])
    """Metrics of losses, and of what was sent again."""

    @property
    def ok(self) -> bool:
        """Whether everything was noticed and healed."""
        return self.findings.ok and bool(self.cut) and not self.differences and not self.unnoticed

    def text(self) -> str:
        """In a line, and what is wrong."""
        lines = [
            f"{self.kind}: {'exact' if self.ok else 'NOT EXACT'}, {self.losses} losses of {self.cut.total()} "
            f"partitions {dict(self.cut)}, {self.verified} times verified as equal, found {self.found}",
            *(f"  not noticed: {each}" for each in self.unnoticed),
            *(f"  orgs verify: {each}" for each in self.differences),
        ]
        return "\n".join(lines if self.findings.ok else [*lines, self.findings.text()])


class _Read(NamedTuple):
    """How far the worker was, right before a loss, and what it had noticed."""

    commands: Mapping[int, int]
    facts: Mapping[Place, int]
    ranges: int
    """The last lost range of commands."""
    noticed: Counter[str]
    """Losses of reference topics, by topic."""


class Losses:
    """One system that loses again and again."""

    def __init__(self, system: System, stack: org_local.Stack, kind: str, seed: int) -> None:
        self._system = system
        self._stack = stack
        self._random = random.Random(seed)
        without = ("unreadable", "duplicate", "reuse") if kind == "election" else ("unreadable",)
        self._sendings = RandomCommands(seed, ORGANIZATIONS, without=without).commands(sys.maxsize)
        self._ids: set[str] = set()
        self._lost = LostCommands()
        topics = system.topics
        self._facts = FactFlow(system.settings.kafka.bootstrap_servers, topics, seed)
        names: dict[str, str] = {each: getattr(topics, each) for each in TOPICS}
        self._names = {topic: name for name, topic in names.items()}
        wanted = TOPICS if kind in ("all", "election") else (kind,)
        self._topics = [names[each] for each in wanted]
        self._plain = [names[each] for each in wanted if each not in PUBLISHED]
        self._elections = Elections(stack, self._topics) if kind == "election" else None
        self.relay, self.worker = system.add("relay"), system.add("worker")
        self.outcome = Outcome(kind)
        for process in system.processes:
            process.wait_until_ready()
        self._read = self._look()

    def run(self, times: int) -> Outcome:
        """Lose so many times, sometimes once more before all is healed; verified after each, judged in the end.

        Raises:
            TimeoutError: Something hangs; the message has what the processes logged last.
        """
        try:
            for number in range(times):
                self._lose()
                while self._elections is None and self._random.random() < SOON_AGAIN:
                    self._lose()
                self._verify()
                print(f"{number + 1}/{times} {self.outcome.text()}", file=sys.stderr, flush=True)
        except TimeoutError as error:
            tails = "\n".join(f"{each.name}:\n{each.tail()}" for each in self._system.processes)
            raise TimeoutError(f"{error}\n{tails}") from error
        return self._judge()

    def _lose(self) -> None:
        """Lose ends while commands and facts flow; their publishers send again what was theirs."""
        if self._elections is None:
            self._flow()
            ends = cut_last(self._stack, dict(self._choose()), self._plain)
        else:
            lagging, killed = self._random.sample(range(1, BROKERS + 1), 2)
            ends = self._elections.lose(lagging, killed, self._flow)
        self.outcome.losses += 1
        self.outcome.cut.update(self._names[topic] for topic, _ in ends)
        self._facts.publish_again(ends)
        self._wait_until_applied()
        self._send_again(
            {number: end for (topic, number), end in ends.items() if topic == self._system.topics.commands}
        )
        self._see_noticed(ends)

    def _verify(self) -> None:
        """Wait until all is done, and compare tables and topics."""
        self._settle()
        found = asyncio.run(find_differences(self._system.settings))
        self.outcome.verified += not found
        self.outcome.differences += [f"{each.kind} {each.subject} at position {each.position}" for each in found]

    def _judge(self) -> Outcome:
        """Have the independent checker look at everything."""
        observed, published = self._lost.tell(self._system.observe(), self._system.publisher.published)
        self.outcome.findings = self._system.check(observed, published, kafka_was_away=True, kafka_lost=True)
        metrics = self.relay.metrics() | self.worker.metrics()
        self.outcome.found = {
            name: value for name, value in metrics.items() if value and ("lost_total" in name or "losses_total" in name)
        }
        self.outcome.found |= {name: value for name, value in metrics.items() if value and "resent_total" in name}
        return self.outcome

    def _flow(self) -> None:
        self._publish(COMMANDS)
        self._facts.publish(FACTS_EACH)
        self._wait_for(self._system.relay_position() + self._random.randrange(1, COMMANDS // 2))
        self._publish(self._random.randrange(LAST_COMMANDS))
        self._system.publisher.flush()
        self._read = self._look()

    def _look(self) -> _Read:
        rows = self._system.fetch("SELECT topic, partition, next_offset FROM reference_progress")
        progress = {(topic, number): offset for topic, number, offset in rows}
        [[ranges]] = self._system.fetch("SELECT coalesce(max(id), 0) FROM lost_range")
        return _Read(self._system.committed(), progress, ranges, self._count_noticed())

    def _choose(self) -> dict[Place, int]:
        cuts: dict[Place, int] = {}
        for topic in self._topics:
            partitions = 1 if self._names[topic] == "relay" else self._system.settings.kafka.partitions
            chosen = self._random.sample(range(partitions), min(partitions, self._random.randint(1, PARTITIONS_MAX)))
            cuts |= {(topic, number): self._random.randint(1, BATCHES_MAX) for number in chosen}
        return cuts

    def _publish(self, commands: int) -> list[Sending]:
        """Send so many; returns those whose ids are new."""
        new: list[Sending] = []
        for _ in range(commands):
            sending = next(self._sendings)
            if sending.command_id is not None and sending.command_id not in self._ids:
                self._ids.add(sending.command_id)
                new.append(sending)
            self._system.publisher.send(sending)
        return new

    def _send_again(self, ends: Mapping[int, int]) -> None:
        """Send commands that were lost, when the worker is past where they were: so nobody takes one for the other."""
        if not ends:
            return
        publisher, partitions = self._system.publisher, self._system.settings.kafka.partitions
        publisher.renew()
        lost = self._lost.take(publisher, ends)
        behind: dict[int, str] = {}
        while not behind.keys() >= ends.keys():
            new = self._publish(1)
            behind |= {partition_of(each.key or b"", partitions): str(each.command_id) for each in new}
        publisher.flush()
        self._wait_until_decided(list(behind.values()))
        for each in lost:
            publisher.send(each)

    def _settle(self) -> None:
        self._publish(LAST_COMMANDS)  # a relay that has nothing to publish notices nothing
        self._system.publisher.flush()
        self._wait_until_decided(list(self._ids))
        self._system.settle(SETTLE_TIMEOUT_S, exactly=True)

    def _wait_until_decided(self, ids: Sequence[str]) -> None:
        statement = "SELECT count(*) FROM journal WHERE command_id = ANY($1::uuid[])"
        wait_for(lambda: self._system.fetch(statement, ids)[0][0] == len(ids), "outcome of all", SETTLE_TIMEOUT_S, 0.1)

    def _wait_until_applied(self) -> None:
        wait_for(
            lambda: read_facts(map(tuple, self._system.fetch(FACTS_SQL))) == self._facts.facts(),
            "facts as they were published last", SETTLE_TIMEOUT_S, 0.1,
        )  # fmt: skip

    def _count_noticed(self) -> Counter[str]:
        found = self.worker.metrics()
        return Counter(
            {topic: int(found.get(f"orgs_reference_losses_total{{topic={topic}}}", 0)) for topic in self._plain}
        )

    def _see_noticed(self, ends: Mapping[Place, int]) -> None:
        """Whether the worker misses what it had read of commands and facts."""
        topic = self._system.topics.commands
        read, facts = self._read.commands, self._read.facts
        missed = {number: end for (name, number), end in ends.items() if name == topic and read.get(number, 0) > end}
        lost = Counter(at[0] for at, end in ends.items() if facts.get(at, 0) > end)
        try:
            wait_for(lambda: self._are_noted_down(missed), f"notice of commands {missed}", SETTLE_TIMEOUT_S, 0.1)
            wait_for(lambda: self._are_counted(lost), f"notice of {lost}", SETTLE_TIMEOUT_S, 0.1)
        except TimeoutError as error:
            self.outcome.unnoticed.append(str(error))

    def _are_noted_down(self, missed: Mapping[int, int]) -> bool:
        """In the table, and on the page of the worker's health."""
        rows = self._system.fetch(
            "SELECT partition, from_offset, to_offset FROM lost_range WHERE id > $1", self._read.ranges
        )
        noted = all(any(at == number and first <= end < to for at, first, to in rows) for number, end in missed.items())
        return noted and (not missed or "were lost before they were read" in self.worker.readiness())

    def _are_counted(self, lost: Mapping[str, int]) -> bool:
        found = self._count_noticed()
        return all(found[topic] >= self._read.noticed[topic] + number for topic, number in lost.items())

    def _wait_for(self, position: int) -> None:
        """Wait until so much is published: there must be something to lose."""
        until = time.monotonic() + STALL_TIMEOUT_S
        while self._system.relay_position() < position and time.monotonic() < until:
            time.sleep(POLL_S / 5)


def run(kind: str, times: int, seed: int, stack: org_local.Stack | None = None) -> Outcome:
    """Lose something of a kind so many times.

    Args:
        kind: Of `KINDS`.
        times: How often.
        seed: Of all that is random.
        stack: With three brokers for an election; None starts one.
    """
    brokers = BROKERS if kind == "election" else 1
    with ExitStack() as context:
        folder = Path(context.enter_context(tempfile.TemporaryDirectory(prefix="orgs-losses-")))
        if stack is None:
            stack = context.enter_context(org_local.start(brokers=brokers, kafka_heap_mb=HEAP_MB))
        copies = {"replication_factor": COPIES} if brokers > 1 else {}
        settings: Settings = context.enter_context(fresh_settings(stack, **copies))
        system = context.enter_context(System(storm_settings(settings), folder))
        return Losses(system, stack, kind, seed).run(times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when all is exact."""
    parser = argparse.ArgumentParser(description="Lose what Kafka acknowledged while commands flow; check the account.")
    parser.add_argument("--times", type=int, default=20, help="for each kind")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    for kind in options.kinds:
        outcomes.append(run(kind, options.times, seed))
        print(outcomes[-1].text(), flush=True)
    exact = all(each.ok for each in outcomes)
    print(f"losses: {'exact' if exact else 'NOT EXACT'}, {time.monotonic() - began:.0f} s, seed {seed}")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
