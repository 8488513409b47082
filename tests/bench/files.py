"""`python -m tests.bench.files`: how fast files are applied, undone and exported, and how much memory that takes.

A file creates organizations and a second one changes each; then the change is undone. Another database gets four times
as many, and is exported. Each command is a process of its own, whose resident memory is sampled.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import org_local
from org_service.settings import LogSettings, Settings
from org_service.store import migrate
from org_service.telemetry.logs import set_up_logging
from tests.bench import load
from tests.bench.command import Measured, ran_for_s, run_orgs, say
from tests.bench.site import open_site, pipeline
from tests.support.database import execute

_FILL: Final = """
    INSERT INTO organization (id, name, name_key, domain, primary_address, version, created_at, updated_at)
    SELECT gen_random_uuid(), 'Organization ' || n, 'organization ' || n, 'org' || n || '.example.com',
           $2, 1, now(), now()
    FROM generate_series(1, $1) AS n
"""


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.files", description=__doc__)
    parser.add_argument(
        "--organizations", type=int, default=50_000, help="applied and undone; four times as many exported"
    )
    count = parser.parse_args().organizations
    set_up_logging(LogSettings(level="warning"))
    with tempfile.TemporaryDirectory(prefix="orgs-bench-") as name, org_local.start() as stack:
        folder = Path(name)
        with open_site(stack, "files", folder) as site, pipeline(site):
            operate = site.settings.operate.model_copy(update={"approval_above": count})
            settings = site.settings.model_copy(update={"operate": operate})
            org_ids = load.organization_ids(count)
            for word, changed in (("create", {}), ("update", {"domain": "new.example.com"})):
                file = folder / f"{word}.jsonl"
                organizations = ({"id": str(each), **load.fields(n), **changed} for n, each in enumerate(org_ids))
                file.write_text("".join(json.dumps(each) + "\n" for each in organizations))
                run_id = _plan_and_run(settings, f"apply ({word})", "apply", str(file))
            _plan_and_run(settings, "undo", "undo", "--run", run_id)
        with open_site(stack, "export", folder) as site:
            asyncio.run(migrate.upgrade(site.settings.database))
            many = 4 * count
            asyncio.run(execute(site.settings, _FILL, many, json.dumps(load.fields(0)["primary_address"])))
            for suffix in ("jsonl", "csv"):
                done = _done(run_orgs(site.settings, "export", str(folder / f"all.{suffix}")))
                rate = f"{many / done.seconds:,.0f}/s"
                say(f"export ({suffix}): {many:,} in {done.seconds:.1f} s, {rate}, {done.memory_text()}")
    return 0


def _plan_and_run(settings: Settings, what: str, *command: str) -> str:
    planned = _done(run_orgs(settings, *command, "--json"))
    plan = planned.documents[0]
    say(f"{what}: {plan['items']:,} planned in {planned.seconds:.1f} s, {planned.memory_text()}")
    ran = _done(run_orgs(settings, "run", plan["id"], "--reason", "a measurement", "--json"))
    run = ran.documents[0]
    sending_s = ran_for_s(run)
    rate = f"{sum(run['counts'].values()) / sending_s:,.0f}/s"
    say(f"{what}: {run['counts']} in {sending_s:.1f} s, {rate}, {ran.seconds:.1f} s in all, {ran.memory_text()}")
    return plan["id"]


def _done(measured: Measured) -> Measured:
    if measured.code:
        raise SystemExit(f"a command ended with {measured.code}: {measured.documents}")
    return measured


if __name__ == "__main__":
    sys.exit(main())
