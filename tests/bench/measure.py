"""One measurement: commands go in, a reader sees what comes out.

The clock runs from the moment the first command is handed to the publisher's client to the moment the last record is
in the reader's hands. Publisher, service, Kafka, Postgres and reader share the machine, so the first and the last
take their part of it. What came is compared with what was sent afterwards.
"""

import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

import psutil

from tests.bench.load import Encoded
from tests.bench.publisher import PublisherProcess
from tests.bench.reader import TopicReader, compare
from tests.bench.site import Services, Site, processes_of


@dataclass(frozen=True, slots=True)
class Run:
    """What one measurement gave."""

    commands: int
    seconds: float
    published_s: float
    """When the broker had the last command, from the first one's sending."""
    latencies_ms: list[float]
    """Of each command, sorted: handed to the client until its record was in the reader's hands."""
    cpu_us: dict[str, float]
    """Processor time a command by process name; those of the bench itself are the last two."""

    @property
    def per_s(self) -> float:
        """Commands a second."""
        return self.commands / self.seconds

    def percentile_ms(self, share: float) -> float:
        """The latency that this share of the commands did not exceed (nearest rank)."""
        return self.latencies_ms[max(0, math.ceil(share * self.commands) - 1)]

    def report(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "commands": self.commands,
            "seconds": round(self.seconds, 3),
            "commands_per_s": round(self.per_s, 1),
            "published_s": round(self.published_s, 3),
            "p50_ms": round(self.percentile_ms(0.5), 2),
            "p99_ms": round(self.percentile_ms(0.99), 2),
            "max_ms": round(self.latencies_ms[-1], 2),
            "cpu_us_per_command": {name: round(each, 1) for name, each in self.cpu_us.items()},
        }


class Bench:
    """A publisher and a reader at the two ends of what is measured. A context manager."""

    def __init__(
        self,
        site: Site,
        services: Services,
        *,
        read: str,
        id_header: str = "ce_commandid",
        linger_ms: float = 5,
    ) -> None:
        kafka = site.settings.kafka
        self._site = site
        self._services = services
        self._undo = ExitStack()
        self._publisher = PublisherProcess(site.bootstrap_servers, kafka.topics.commands, linger_ms=linger_ms)
        self._reader = TopicReader(site.bootstrap_servers, read, kafka.partitions, id_header=id_header)

    def __enter__(self) -> Self:
        self._undo.enter_context(self._publisher)
        self._undo.enter_context(self._reader)
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def run(self, commands: Sequence[Encoded], *, rate: float | None = None) -> Run:
        """Publish commands and wait for one record each.

        Raises:
            TimeoutError, MismatchError, ServerFailedError: The figures would mean nothing.
        """
        self._publisher.load(commands, rate=rate)
        before = self._cpu_s()
        self._publisher.go()
        try:
            seen = self._reader.read(len(commands), check=self._services.check)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._services.last_words()}") from error
        after = self._cpu_s()
        sent = self._publisher.finish()
        compare(seen, commands)
        sent_s = dict(zip((command.command_id for command in commands), sent.sent_s, strict=True))
        moments = zip(seen.command_ids, seen.seen_s, strict=True)
        return Run(
            commands=len(commands),
            seconds=seen.seen_s[-1] - sent.sent_s[0],
            published_s=sent.acknowledged_s - sent.sent_s[0],
            latencies_ms=sorted((seen_s - sent_s[command_id]) * 1000 for command_id, seen_s in moments),
            cpu_us={name: (after[name] - before[name]) / len(commands) * 1e6 for name in before},
        )

    def _cpu_s(self) -> dict[str, float]:
        pids = processes_of(self._site, self._services) | {"publisher": [self._publisher.pid], "reader": [os.getpid()]}
        return {name: sum(map(cpu_s, each)) for name, each in pids.items()}


def cpu_s(pid: int) -> float:
    """Processor seconds that a process used so far; none of one that ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:  # one of Postgres' short-lived processes
        return 0.0
    return times.user + times.system


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Medians of runs, and the runs."""
    return {
        "commands": runs[0].commands,
        "commands_per_s": round(median(run.per_s for run in runs), 1),
        "p50_ms": round(median(run.percentile_ms(0.5) for run in runs), 2),
        "p99_ms": round(median(run.percentile_ms(0.99) for run in runs), 2),
        "cpu_us_per_command": {name: round(median(run.cpu_us[name] for run in runs), 1) for name in runs[0].cpu_us},
        "runs": [run.report() for run in runs],
    }
