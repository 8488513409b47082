"""`orgs` commands as processes, timed, with their resident memory sampled."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson
import psutil

from org_service.settings import Settings
from tests.support.processes import environment

_SAMPLE_INTERVAL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Measured:
    """What a command said and took, the start of the process included."""

    code: int
    documents: list[Any]
    """Its standard output, a JSON document a line."""
    seconds: float
    cpu_seconds: float
    """Of the process, which hardly depend on what else the machine does."""
    rss_mb: list[float]
    """Of the process and those that it started."""

    def memory_text(self) -> str:
        """Whether memory is flat."""
        early = self.rss_mb[len(self.rss_mb) // 3]
        return f"resident memory {early:.0f} MB after a third, {max(self.rss_mb):.0f} MB at most"


def run_orgs(settings: Settings, *arguments: str) -> Measured:
    """Run a command to its end."""
    began_s, began_cpu_s = time.monotonic(), _spent_by_children_s()
    rss_mb = list[float]()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "org_service.cli", *arguments], env=os.environ | environment(settings), stdout=said
        )
        while process.poll() is None:
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                rss_mb.append(sum(each.memory_info().rss for each in (parent, *parent.children())) / 2**20)
            time.sleep(_SAMPLE_INTERVAL_S)
        said.seek(0)
        documents = [orjson.loads(line) for line in said.read().splitlines()]
    seconds, cpu_seconds = time.monotonic() - began_s, _spent_by_children_s() - began_cpu_s
    return Measured(process.returncode, documents, seconds, cpu_seconds, rss_mb)


def say(line: str) -> None:
    """Write a line of results at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def ran_for_s(operation: Mapping[str, Any]) -> float:
    """From the beginning to the end of a run, as `orgs run --json` tells it; without the plan."""
    began, ended = (datetime.fromisoformat(operation[name]) for name in ("started_at", "ended_at"))
    return (ended - began).total_seconds()


def _spent_by_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
