"""Hostile clients hold thousands of connections to an edge; an honest one must hardly notice.

    python -m tests.chaos.hostile --connections 10000 --seconds 60

They are silent, send heads and bodies byte by byte, don't read, pipeline, upgrade, send trailers without an end, with
and without a token, from a process of their own; what they lose they open again. The honest client reads over
connections that it keeps, and every tenth time over a new one. First it asks while nobody disturbs it, so that its
times under attack can be held against those of the same machine.
"""

import argparse
import asyncio
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
from pydantic import SecretStr

import org_local
from org_service.settings import AuthSettings, DatabaseSettings, KafkaSettings, Settings
from org_service.store import migrate
from tests.support.edge import People, add_staff, with_edge
from tests.support.processes import ServiceProcess
from tests.support.topics import create_topics, drop_topics

RATE_PER_S = 45.0
"""Of the honest client: within the edge's default."""
KEPT = 4
NEW_EVERY = 10
P99_MS = 100.0
ANSWER_TIMEOUT_S = 10


@dataclass
class Times:
    """What an honest client saw."""

    latencies_ms: list[float] = field(default_factory=list[float])
    failures: list[str] = field(default_factory=list[str])

    def percentile(self, share: float) -> float:
        return sorted(self.latencies_ms)[int(len(self.latencies_ms) * share)]

    def text(self) -> str:
        return (
            f"{len(self.latencies_ms)} answers in ms: p50 {statistics.median(self.latencies_ms):.1f}, "
            f"p99 {self.percentile(0.99):.1f}, longest {max(self.latencies_ms):.0f}; {len(self.failures)} failures"
        )


class Honest:
    """A client that asks at a steady rate, whatever became of what it asked before."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._request = (
            f"GET /v1/orgs?limit=1 HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\n\r\n"
        ).encode()
        self._kept: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def ask_for(self, seconds: float) -> Times:
        """Ask for a while."""
        times = Times()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            began = loop.time()
            for number in range(int(seconds * RATE_PER_S)):
                due = began + number / RATE_PER_S
                await asyncio.sleep(max(0.0, due - loop.time()))
                group.create_task(self._ask(times, new=number % NEW_EVERY == 0))
        return times

    async def _ask(self, times: Times, *, new: bool) -> None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                if new or self._kept.empty():
                    connection = await asyncio.open_connection("127.0.0.1", self._port)
                else:
                    connection = self._kept.get_nowait()
                reader, writer = connection
                writer.write(self._request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            times.failures.append(type(error).__name__)
            return
        if not head.startswith(b"HTTP/1.1 200 "):
            times.failures.append(head.partition(b"\r\n")[0].decode())
        times.latencies_ms.append((time.perf_counter() - began) * 1000)
        if self._kept.qsize() < KEPT:
            self._kept.put_nowait(connection)
        else:
            await _close(writer)

    async def close(self) -> None:
        """Close what is kept."""
        while not self._kept.empty():
            await _close(self._kept.get_nowait()[1])


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@dataclass
class Outcome:
    """What a run showed."""

    quiet: Times
    attacked: Times
    held: int
    """Hostile connections at the end."""
    grown_mb: float
    """Of the edge's memory."""
    closed: dict[str, float]

    def text(self) -> str:
        closed = ", ".join(f"{why} {count:.0f}" for why, count in self.closed.items())
        return (
            f"quiet:    {self.quiet.text()}\nattacked: {self.attacked.text()}\n"
            f"{self.held} hostile connections at the end; the edge grew by {self.grown_mb:.0f} MB; closed: {closed}"
        )


async def run(edge: ServiceProcess, people: People, connections: int, rate: float, seconds: float) -> Outcome:
    """Ask quietly, then under attack.

    Args:
        edge: Ready.
        people: Make tokens that it knows.
        connections: Hostile ones.
        rate: Of those that are opened in a second.
        seconds: Under attack.
    """
    port = int((edge.api_url() or "").rpartition(":")[2])
    assert edge.pid is not None
    process = psutil.Process(edge.pid)

    honest = Honest(port, people.token("root"))
    await honest.ask_for(1)
    quiet = await honest.ask_for(min(seconds, 10.0))
    before = process.memory_info().rss
    attackers = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.hostile_process", str(port), str(connections), str(rate),
        people.token("nobody"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert attackers.stdin is not None
    assert attackers.stdout is not None
    try:
        assert await asyncio.wait_for(attackers.stdout.readline(), 120) == b"open\n"
        attacked = await honest.ask_for(seconds)
        grown = process.memory_info().rss - before
        attackers.stdin.close()
        held = int(await asyncio.wait_for(attackers.stdout.readline(), 30))
        await attackers.wait()
    except BaseException:
        attackers.kill()
        raise
    await honest.close()
    series = "orgs_http_connections_closed_total{why="
    closed = {
        name.removeprefix(series).rstrip("}"): count
        for name, count in (await asyncio.to_thread(edge.metrics)).items()
        if name.startswith(series)
    }
    return Outcome(quiet, attacked, held, grown / 2**20, closed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run on servers, a database and topics of its own; 1 if the honest client was kept waiting or turned away."""
    parser = argparse.ArgumentParser(prog="make hostile ARGS=…", description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1_500, help="hostile connections opened in a second, at most")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args(arguments)
    with org_local.start() as stack, tempfile.TemporaryDirectory(prefix="orgs-hostile-") as folder:
        name = f"h{secrets.token_hex(4)}"
        server_url = stack.database_url.rpartition("/")[0]
        people = People(Path(folder))
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=f"{name}.", partitions=3),
            database=DatabaseSettings(url=SecretStr(f"{server_url}/{name}")),
            auth=AuthSettings(commands="trusted"),
        )
        asyncio.run(_execute(f"{server_url}/postgres", f"CREATE DATABASE {name}"))
        asyncio.run(migrate.upgrade(settings.database))
        asyncio.run(create_topics(settings))
        asyncio.run(add_staff(settings, "root"))
        edge = ServiceProcess("edge", with_edge(settings, people, rate_per_s=50, rate_burst=100), Path(folder))
        try:
            edge.start()
            edge.wait_until_ready()
            outcome = asyncio.run(run(edge, people, options.connections, options.rate, options.seconds))
            status = edge.terminate()
        finally:
            edge.close()
            asyncio.run(drop_topics(settings))
            asyncio.run(_execute(f"{server_url}/postgres", f"DROP DATABASE {name} WITH (FORCE)"))
    print(outcome.text())
    good = not outcome.attacked.failures and outcome.attacked.percentile(0.99) <= P99_MS and status == 0
    print("held" if good else f"NOT HELD: p99 must be at most {P99_MS:.0f} ms, without failures")
    return 0 if good else 1


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


if __name__ == "__main__":
    sys.exit(main())
