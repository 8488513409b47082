"""`make soak`: does the memory of worker and relay stay flat? A million updates at full speed say so.

The largest resident memory seen during the soak is compared with that after a warm-up. Commands are published in
portions, so that neither this program nor the backlog grows. The servers' data do, in a temporary folder.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.table import Table

import org_local
from org_local import LocalStackError
from org_service.settings import LogSettings
from org_service.telemetry.logs import set_up_logging
from tests.bench import load
from tests.bench.measure import Bench
from tests.bench.reader import MismatchError
from tests.bench.report import for_results
from tests.bench.site import ROLES, Services, open_site, pipeline

COMMANDS: Final = 1_000_000
WARM_UP: Final = 50_000
GROWTH_MB_MAX: Final = 50.0
DISK_BYTES_A_COMMAND: Final = 10_000
"""Records in four topics, rows in two tables, indexes, write-ahead log; rounded up."""
_PORTION: Final = 25_000
_SAMPLE_INTERVAL_S: Final = 2.0
_ROWS_MAX: Final = 30
"""Of the table; samples in between are left out."""
_MB_A_CHARACTER: Final = 4.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Resident memory at one moment."""

    seconds: float
    commands: int
    rss_mb: dict[str, float]


@dataclass(slots=True)
class Soaked:
    """What a soak gave; the first sample is the one after the warm-up."""

    samples: list[Sample] = field(default_factory=list[Sample])

    def growth_mb(self) -> dict[str, float]:
        """By process: the most that it ever had above the first sample."""
        first = self.samples[0].rss_mb
        return {name: max(sample.rss_mb[name] for sample in self.samples) - first[name] for name in first}


class _Sampler:
    """Samples in the background, so that busy moments are seen too. A context manager."""

    def __init__(self, services: Services) -> None:
        self.commands = 0
        self.soaked = Soaked()
        self._services = services
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self.sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def sample(self) -> None:
        """Take one sample now."""
        seconds = time.monotonic() - self._start
        self.soaked.samples.append(Sample(seconds, self.commands, self._services.rss_mb()))

    def _run(self) -> None:
        while not self._ended.wait(_SAMPLE_INTERVAL_S):
            self.sample()


def soak(
    stack: org_local.Stack,
    folder: Path,
    *,
    commands: int,
    warm_up: int,
    organizations: int = load.ORGANIZATIONS,
    say: Callable[[str], None],
) -> Soaked:
    """Run worker and relay through `commands` updates and watch their memory.

    Raises:
        TimeoutError, MismatchError, ServerFailedError: An event is missing or double, or a process ended.
    """
    org_ids = load.organization_ids(organizations)
    with (
        open_site(stack, "soak", folder) as site,
        pipeline(site) as services,
        Bench(site, services, read=site.settings.kafka.topics.events) as bench,
    ):
        say(f"warming up with {organizations + warm_up:,} commands")
        bench.run(load.creations(org_ids))
        for done in range(0, warm_up, _PORTION):
            bench.run(load.updates(org_ids, min(_PORTION, warm_up - done), done))
        with _Sampler(services) as sampler:
            while sampler.commands < commands:
                portion = min(_PORTION, commands - sampler.commands)
                run = bench.run(load.updates(org_ids, portion, warm_up + sampler.commands))
                sampler.commands += portion
                say(f"{sampler.commands:>9,} commands, {run.per_s:,.0f}/s, {_text(services.rss_mb())}")
            sampler.sample()
        return sampler.soaked


def _text(figures_mb: dict[str, float]) -> str:
    return ", ".join(f"{name} {figure:.1f} MB" for name, figure in figures_mb.items())


def _table(soaked: Soaked) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="resident memory in MB", title_justify="left", pad_edge=False)
    for heading in ("s", "commands", *(column for role in ROLES for column in (role, ""))):
        table.add_column(heading, justify="right" if heading else "left")
    samples = soaked.samples
    step = max(1, len(samples) // _ROWS_MAX)
    for sample in [*samples[:-1:step], samples[-1]]:
        figures = ((f"{sample.rss_mb[role]:.1f}", "▇" * round(sample.rss_mb[role] / _MB_A_CHARACTER)) for role in ROLES)
        table.add_row(f"{sample.seconds:.0f}", f"{sample.commands:,}", *(cell for pair in figures for cell in pair))
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description="Watch memory under load.")
    parser.add_argument("--commands", type=int, default=COMMANDS)
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="commands before the first sample")
    parser.add_argument("--growth-mb-max", type=float, default=GROWTH_MB_MAX, help="more is a failure")
    return parser.parse_args()


def main() -> int:
    """Soak; the exit status is 1 when memory grew too much, or something went wrong."""
    arguments = _arguments()
    set_up_logging(LogSettings(level="warning"))
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    needed = (arguments.commands + arguments.warm_up) * DISK_BYTES_A_COMMAND
    if (free := shutil.disk_usage(tempfile.gettempdir()).free) < needed:
        where = f"{tempfile.gettempdir()} has {free / 1e9:.1f} GB"
        progress.print(f"error: {where} free, {needed / 1e9:.1f} are needed: set TMPDIR, or lower --commands")
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="orgs-soak-") as folder, org_local.start() as stack:
            soaked = soak(
                stack, Path(folder), commands=arguments.commands, warm_up=arguments.warm_up, say=progress.print
            )
    except (LocalStackError, MismatchError, TimeoutError) as error:
        progress.print(f"error: {error}", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    console = for_results()
    console.print(_table(soaked))
    growth = soaked.growth_mb()
    fine = max(growth.values()) <= arguments.growth_mb_max
    verdict = "flat" if fine else "[red]not flat[/]"
    console.print(
        f"{verdict}: at most {_text(growth)} more than after the warm-up; {arguments.growth_mb_max:.0f} MB are allowed"
    )
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
