"""Commands flow while the broker loses ends of partitions, as in a power loss; then the account must be exact.

    python -m tests.chaos.losses --times 20 --seed 7

For each kind of topic that the relay writes, and for all of them at once, so many times: the broker is stopped while
there is work in flight, the last batches of some partitions are taken out of its files, and it starts again. What a
worker wrote to `orgs.results` stays: a reply to a duplicate is nobody's to send again but the publisher's.
"""

import argparse
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import org_local
from tests.chaos.storm import fresh_settings, storm_settings
from tests.support.findings import Findings
from tests.support.log_faults import cut_last
from tests.support.random_commands import RandomCommands
from tests.support.system import System
from tests.support.waiting import POLL_S

KINDS = ("events", "state", "results", "relay", "all")
COMMANDS = 300
"""Between two losses."""
ORGANIZATIONS = 100
BATCHES_MAX = 6
"""That a partition loses at once: three transactions and their markers."""
STALL_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 120


class Losses:
    """One system that loses again and again."""

    def __init__(self, system: System, stack: org_local.Stack, seed: int) -> None:
        self._system = system
        self._stack = stack
        self._random = random.Random(seed)
        self._sendings = RandomCommands(seed, ORGANIZATIONS).commands(sys.maxsize)
        self.cuts: Counter[str] = Counter()
        """Partitions that lost something, by kind of topic."""
        self._partitions = system.settings.kafka.partitions

    def lose(self, kind: str) -> None:
        """Let commands flow, and lose ends while they do."""
        self._publish(COMMANDS)
        self._wait_for(self._system.relay_position() + self._random.randrange(1, COMMANDS // 2))
        cuts = {(topic, number): self._random.randint(1, BATCHES_MAX) for topic, number in self._choose(kind)}
        for topic, _ in cut_last(self._stack, cuts):
            self.cuts[topic.removeprefix(self._system.settings.kafka.topic_prefix)] += 1

    def settle(self) -> Findings:
        """Wait until everything is published, and judge.

        Raises:
            TimeoutError: Something hangs; the message has what the processes logged last.
        """
        self._publish(COMMANDS)
        try:
            self._system.settle(SETTLE_TIMEOUT_S)
        except TimeoutError as error:
            tails = "\n".join(f"{each.name}:\n{each.tail()}" for each in self._system.processes)
            raise TimeoutError(f"{error}\n{tails}") from error
        return self._system.check(kafka_was_away=True, kafka_lost=True)

    def _choose(self, kind: str) -> Iterator[tuple[str, int]]:
        topics = self._system.topics
        for name in KINDS[:-1] if kind == "all" else (kind,):
            everywhere = [(getattr(topics, name), number) for number in range(self._partitions)]
            yield from (
                everywhere[:1] if name == "relay" else self._random.sample(everywhere, self._random.randint(1, 4))
            )

    def _publish(self, commands: int) -> None:
        for _ in range(commands):
            self._system.publisher.send(next(self._sendings))

    def _wait_for(self, position: int) -> None:
        """Wait until so much is published: there must be something to lose."""
        until = time.monotonic() + STALL_TIMEOUT_S
        while self._system.relay_position() < position and time.monotonic() < until:
            time.sleep(POLL_S / 5)


def run(times: int, seed: int, kinds: Sequence[str] = KINDS) -> tuple[Findings, Counter[str], dict[str, float]]:
    """Lose ends so many times for each kind; returns the account, what was cut, and the relay's metrics."""
    with (
        tempfile.TemporaryDirectory(prefix="orgs-losses-") as folder,
        org_local.start() as stack,
        fresh_settings(stack) as settings,
        System(storm_settings(settings), Path(folder)) as system,
    ):
        relay = system.add("relay")
        system.add("worker")
        for process in system.processes:
            process.wait_until_ready()
        losses = Losses(system, stack, seed)
        for number in range(times):
            for kind in kinds:
                losses.lose(kind)
                print(f"{number + 1}/{times} {kind}: {losses.cuts}", file=sys.stderr, flush=True)
        findings = losses.settle()
        if not findings.ok:
            print(relay.tail(), file=sys.stderr)
        return findings, losses.cuts, relay.metrics()


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when the account is exact."""
    parser = argparse.ArgumentParser(description="Lose ends of partitions while commands flow; check the account.")
    parser.add_argument("--times", type=int, default=20, help="for each kind of topic")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    began = time.monotonic()
    findings, cuts, metrics = run(options.times, seed, options.kinds)
    print(findings.text())
    found = {name: value for name, value in metrics.items() if "_losses" in name or "_resent" in name}
    print(f"cut: {dict(cuts)}; found: {found}")
    print(f"losses: {'exact' if findings.ok else 'NOT EXACT'}, {time.monotonic() - began:.0f} s, seed {seed}")
    return 0 if findings.ok else 1


if __name__ == "__main__":
    sys.exit(main())
