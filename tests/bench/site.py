"""A database and topics of one scenario's own, and the processes that work on them."""

import asyncio
import os
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Literal, Protocol

import asyncpg
import psutil
from pydantic import SecretStr

import org_local
from org_local import ports
from org_local.errors import LocalStackError
from org_local.server import Program, Server, log_tail
from org_service.settings import AuthSettings, DatabaseSettings, KafkaSettings, Settings
from org_service.store import migrate
from tests.bench.publisher import ROOT
from tests.support.topics import create_topics, drop_topics

Role = Literal["worker", "relay", "edge"]
ROLES: Final[tuple[Role, ...]] = ("worker", "relay")

_STOP: Final = (("SIGTERM", 20.0),)
_READY_TIMEOUT_S: Final = 2.0


class Site:
    """Where one scenario takes place; settings are the defaults but for addresses and names."""

    def __init__(self, stack: org_local.Stack, settings: Settings, folder: Path) -> None:
        self.stack = stack
        self.settings = settings
        self.folder = folder
        """For logs."""

    @property
    def bootstrap_servers(self) -> str:
        """Where Kafka is."""
        return self.settings.kafka.bootstrap_servers

    @property
    def database_url(self) -> str:
        """The scenario's own database."""
        return self.settings.database.url.get_secret_value()


@contextmanager
def open_site(stack: org_local.Stack, name: str, folder: Path, auth: AuthSettings | None = None) -> Generator[Site]:
    """Make an empty database and the topics, 12 partitions each; drop them at the end.

    Args:
        stack: The servers.
        name: Of the scenario.
        folder: For logs.
        auth: Who may enter; None trusts publishers.
    """
    run = f"bench_{name}_{secrets.token_hex(3)}"
    server_url = stack.database_url.rpartition("/")[0]
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=f"{run}."),
        database=DatabaseSettings(url=SecretStr(f"{server_url}/{run}")),
        auth=auth or AuthSettings(commands="trusted"),
    )
    asyncio.run(_execute(f"{server_url}/postgres", f"CREATE DATABASE {run}"))
    asyncio.run(create_topics(settings))
    try:
        yield Site(stack, settings, folder)
    finally:
        asyncio.run(drop_topics(settings))
        asyncio.run(_execute(f"{server_url}/postgres", f"DROP DATABASE {run} WITH (FORCE)"))


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


class HasPids(Protocol):
    """Something made of processes."""

    def pids(self) -> dict[str, list[int]]:
        """Them by name."""
        ...


class Services:
    """Processes that do the work under measurement."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = {server.program.name: server for server in servers}

    def check(self) -> None:
        """See that all run.

        Raises:
            ServerFailedError: One ended; the message has the end of its log.
        """
        for server in self._servers.values():
            server.check()

    def last_words(self) -> str:
        """The ends of their logs."""
        return "\n".join(f"--- {name}\n{log_tail(server.program.log)}" for name, server in self._servers.items())

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each by name."""
        return {name: psutil.Process(server.pid).memory_info().rss / 2**20 for name, server in self._servers.items()}

    def pids(self) -> dict[str, list[int]]:
        """Their processes by name."""
        return {name: server.pids() for name, server in self._servers.items()}


@contextmanager
def running(servers: Sequence[Server]) -> Generator[Services]:
    """Start processes in parallel, wait until all are ready, and stop them at the end."""
    with ExitStack() as undo, ThreadPoolExecutor(len(servers)) as pool:
        for server in servers:
            undo.callback(server.stop)
        for started in [pool.submit(server.start) for server in servers]:
            started.result()
        yield Services(servers)


def program(
    site: Site, name: str, argv: Sequence[str], *, env: dict[str, str] | None = None, is_ready: Callable[[], bool]
) -> Server:
    """A Python program of this environment that ends when this process does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORGS_")}
    return Server(
        Program(
            name=name,
            argv=[sys.executable, *argv],
            log=site.folder / f"{name}.log",
            env=kept | {"PYTHONPATH": str(ROOT)} | (env or {}),
            stop=_STOP,
        ),
        is_ready=is_ready,
        port=0,
    )


@contextmanager
def pipeline(site: Site, *, profiled: Role | None = None) -> Generator[Services]:
    """Migrate the database and run `orgs serve` twice, as worker and as relay, with default settings.

    Args:
        site: Where.
        profiled: Run this one under cProfile, and leave `ROLE.pstats` in the site's folder.
    """
    asyncio.run(migrate.upgrade(site.settings.database))
    taken: set[int] = set()
    with running([service(site, role, ports.pick(None, taken), profiled=role == profiled) for role in ROLES]) as both:
        yield both


def service(site: Site, role: Role, port: int, *, profiled: bool = False) -> Server:
    """`orgs serve` in one role on a port; settings are the defaults but for addresses, names and the issuer."""
    health_port = ports.pick(None, {port}) if role == "edge" else port
    cprofile = ["-m", "cProfile", "-o", str(site.folder / f"{role}.pstats")] if profiled else []
    env = {
        "ORGS_KAFKA__BOOTSTRAP_SERVERS": site.bootstrap_servers,
        "ORGS_KAFKA__TOPIC_PREFIX": site.settings.kafka.topic_prefix,
        "ORGS_DATABASE__URL": site.database_url,
        "ORGS_AUTH__COMMANDS": site.settings.auth.commands,
        "ORGS_AUTH__ISSUER": site.settings.auth.issuer,
        "ORGS_AUTH__JWKS_FILE": site.settings.auth.jwks_file,
        f"ORGS_{role.upper()}__PORT": str(port),
        "ORGS_EDGE__HEALTH_PORT": str(health_port),
    }

    def is_ready() -> bool:
        try:
            url = f"http://{ports.LOOPBACK}:{health_port}/readyz"
            with urllib.request.urlopen(url, timeout=_READY_TIMEOUT_S) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    return program(
        site, role, [*cprofile, "-m", "org_service.cli", "serve", "--role", role], env=env, is_ready=is_ready
    )


def processes_of(site: Site, services: HasPids) -> dict[str, list[int]]:
    """Every process at work, by name; Kafka's and Postgres' only where these were started here."""
    pids = services.pids()
    try:
        return pids | {"kafka": site.stack.kafka.pids(), "postgres": site.stack.postgres.pids()}
    except LocalStackError:
        return pids
