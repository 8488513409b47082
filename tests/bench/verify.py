"""`python -m tests.bench.verify`: how long `orgs verify` takes, and whether its memory stays flat.

A million organizations with five changes each, bodies as large as those of `end_to_end` (`verify_fill`); then `orgs
verify` runs as a process of its own.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import psutil

import org_local
from org_service.settings import LogSettings
from org_service.telemetry.logs import set_up_logging
from tests.bench.command import run_orgs, say
from tests.bench.site import Site, open_site
from tests.bench.verify_fill import fill

ORGANIZATIONS: Final = 1_000_000
CHANGES: Final = 5


def main() -> int:
    """Measure; the exit status is that of the last verification."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.verify", description=__doc__)
    parser.add_argument("--organizations", type=int, default=ORGANIZATIONS)
    parser.add_argument("--changes", type=int, default=CHANGES, help="of each organization")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="warning"))
    code = 0
    with (
        tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder,
        org_local.start() as stack,
        open_site(stack, "verify", Path(folder)) as site,
    ):
        asyncio.run(fill(site.settings, arguments.organizations, arguments.changes))
        for _ in range(arguments.runs):
            code = _measure(site)
    return code


def _measure(site: Site) -> int:
    before = _servers_s(site)
    ran = run_orgs(site.settings, "verify", "--json")
    [report] = ran.documents
    spent = [f"{name} {after - before[name]:.1f} s" for name, after in _servers_s(site).items()]
    say(
        f"{report['verdict']} as of {report['position']:,}: {ran.seconds:.1f} s, the start of the process included; "
        f"{ran.memory_text()}"
    )
    say(f"  processor: {ran.cpu_seconds:.1f} s here and in its children, {', '.join(spent)}")
    for each in report["comparisons"]:
        say(f"  {each['name']}: {each['verdict']}, {each['checked']:,} {each['why'] or ''}")
    return ran.code


def _servers_s(site: Site) -> dict[str, float]:
    """What the servers spent so far, by name; those of their processes that ended included."""
    servers = {"Kafka": site.stack.kafka.pids(), "Postgres": site.stack.postgres.pids()}
    return {name: sum(map(_spent_s, pids)) for name, pids in servers.items()}


def _spent_s(pid: int) -> float:
    try:
        times: Any = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
