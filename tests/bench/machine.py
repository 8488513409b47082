"""On what the figures were measured, and whether what is called durable is."""

import asyncio
import os
import platform
import tempfile
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Final

import asyncpg
import confluent_kafka
import psutil

import org_local
from org_local import jars

_PACKAGES: Final = ("aiokafka", "asyncpg", "faststream", "pydantic", "sqlalchemy", "sqlmodel", "uvloop")
_POSTGRES_SETTINGS: Final = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "server_version")
_SYNCS: Final = 20


class NotDurableError(Exception):
    """Postgres was told not to wait for the disk: figures would mean nothing."""


def describe(stack: org_local.Stack) -> dict[str, Any]:
    """The machine, the versions, and the settings of durability as the servers themselves name them.

    Raises:
        NotDurableError: They are off.
    """
    postgres = asyncio.run(_postgres_settings(stack.database_url))
    if (postgres["fsync"], postgres["synchronous_commit"]) != ("on", "on"):
        raise NotDurableError(f"fsync and synchronous_commit must be on, the server says {postgres}")
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": round(os.getloadavg()[0], 2),
            "fsync_ms": round(_fsync_ms(), 2),
        },
        "versions": {
            "python": platform.python_version(),
            "kafka": jars.VERSION,
            "postgres": postgres.pop("server_version"),
            "librdkafka": confluent_kafka.libversion()[0],
            **{package: metadata.version(package) for package in _PACKAGES},
        },
        "durability": {
            "postgres": postgres,
            "kafka": "acks=all, idempotent producers, read_committed readers; one broker, which writes as it does "
            "by default (page cache)",
        },
    }


async def _postgres_settings(url: str) -> dict[str, str]:
    connection = await asyncpg.connect(url)
    try:
        return {name: await connection.fetchval(f"SHOW {name}") for name in _POSTGRES_SETTINGS}
    finally:
        await connection.close()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _fsync_ms() -> float:
    """What a synced write of 8 KiB costs where temporary data are; next to nothing would mean that it isn't one."""
    times: list[float] = []
    with tempfile.TemporaryFile() as file:
        for _ in range(_SYNCS):
            start = time.perf_counter()
            file.write(b"x" * 8192)
            file.flush()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - start) * 1000)
    return median(times)
