"""`python -m tests.bench.profile --role worker`: where the time of one process goes, under the load of `end_to_end`.

cProfile makes everything slower, small functions most of all: read it for proportions, not for speed.
"""

import argparse
import pstats
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

import org_local
from org_service.settings import LogSettings
from org_service.telemetry.logs import set_up_logging
from tests.bench import load
from tests.bench.measure import Bench
from tests.bench.scenarios import warm_up
from tests.bench.site import ROLES, Role, open_site, pipeline

_WARM_UP: Final = 4_000


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description="Profile worker or relay.")
    parser.add_argument("--role", choices=ROLES, required=True)
    parser.add_argument("--commands", type=int, default=load.COMMANDS)
    parser.add_argument("--sort", choices=("tottime", "cumtime"), default="tottime")
    parser.add_argument("--lines", type=int, default=40)
    return parser.parse_args()


def profile(stack: org_local.Stack, folder: Path, role: Role, commands: int) -> Path:
    """Run the pipeline with one role profiled.

    Returns:
        The file to read with `pstats`.
    """
    with open_site(stack, "profile", folder) as site, pipeline(site, profiled=role) as services:
        with Bench(site, services, read=site.settings.kafka.topics.events) as bench:
            warm_up(bench, load.ORGANIZATIONS, _WARM_UP)
            run = bench.run(load.updates(load.organization_ids(load.ORGANIZATIONS), commands, 0))
        Console(stderr=True).print(f"{run.per_s:,.0f} commands/s while profiled")
    return folder / f"{role}.pstats"


def main() -> None:
    """Profile and print."""
    arguments = _arguments()
    set_up_logging(LogSettings(level="warning"))
    with tempfile.TemporaryDirectory(prefix="orgs-profile-") as folder, org_local.start() as stack:
        path = profile(stack, Path(folder), arguments.role, arguments.commands)
        pstats.Stats(str(path), stream=sys.stdout).sort_stats(arguments.sort).print_stats(arguments.lines)


if __name__ == "__main__":
    main()
