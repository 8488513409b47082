"""`make bench`: measure, print a table, write `.local/bench.json`.

Kafka and Postgres are started for it, with data in a temporary folder and durable settings. Figures are medians of runs
on one machine in one session; compare them with each other, not with another machine's.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console

import org_local
from org_local import LocalStackError
from org_service.settings import LogSettings
from org_service.telemetry.logs import set_up_logging
from tests.bench import machine, report, scenarios
from tests.bench.publisher import ROOT
from tests.bench.reader import MismatchError

BENCH_FILE: Final = ROOT / ".local" / "bench.json"
_NAMES: Final = [*scenarios.SCENARIOS, scenarios.LATENCY_LOAD]


def _arguments() -> argparse.Namespace:
    plan = scenarios.Plan()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure the service's speed.")
    parser.add_argument("--runs", type=int, default=plan.runs, help="of each scenario; medians are reported")
    parser.add_argument("--commands", type=int, default=plan.commands, help="of a run of end_to_end and floor")
    parser.add_argument(
        "--only", action="append", choices=_NAMES, metavar="NAME", help=f"may be repeated: {', '.join(_NAMES)}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, not tables")
    parser.add_argument("--output", type=Path, default=BENCH_FILE, help="where the JSON goes (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.only = arguments.only or _NAMES
    if scenarios.LATENCY_LOAD in arguments.only and "end_to_end" not in arguments.only:
        parser.error("latency_load is measured at half the speed of end_to_end: ask for both")
    return arguments


def main() -> int:
    """Measure; the exit status is 0 when all was measured, whatever the figures."""
    arguments = _arguments()
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    set_up_logging(LogSettings(level="warning"))
    plan = scenarios.Plan(runs=arguments.runs, commands=arguments.commands)
    try:
        with tempfile.TemporaryDirectory(prefix="orgs-bench-") as folder, org_local.start() as stack:
            facts = machine.describe(stack)
            scene = scenarios.Scene(stack, Path(folder), plan, progress.print)
            results = scenarios.measure(scene, arguments.only)
    except (LocalStackError, machine.NotDurableError, MismatchError, TimeoutError) as error:
        progress.print(f"error: {error}", markup=False)
        return 1
    except KeyboardInterrupt:
        return 130
    write(facts, results, arguments.output)
    if arguments.json:
        sys.stdout.write(arguments.output.read_text())
    else:
        report.render(facts | {"scenarios": results}, report.for_results())
        progress.print(f"written to {arguments.output}")
    return 0


def write(facts: dict[str, object], results: dict[str, object], path: Path) -> None:
    """Write the JSON file: what is known of the machine, and each scenario by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts | results, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
