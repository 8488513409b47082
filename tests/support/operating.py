"""The command line against real servers, with or without a worker and a relay behind them."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from org_events.commands import Command
from org_events.publishing import OrganizationClient
from org_events.results import Outcome
from org_service.cli.app import app
from org_service.operate import publish
from org_service.relay import Relay
from org_service.settings import LogSettings, Settings
from org_service.telemetry.logs import set_up_logging
from org_service.worker.worker import Worker
from tests.support.processes import environment

ORG = "0190c5f0-7d1c-7b7e-9d57-000000000001"
OTHER = "0190c5f0-7d1c-7b7e-9d57-000000000002"


@dataclass(frozen=True)
class Answer:
    """What a command said, and how it ended."""

    code: int
    stdout: str
    stderr: str
    output: str
    """Both, as a terminal shows them."""

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return orjson.loads(self.stdout)

    @property
    def json_lines(self) -> list[Any]:
        """Standard output as a JSON document a line."""
        return [orjson.loads(line) for line in self.stdout.splitlines()]


@dataclass
class Orgs:
    """Runs `orgs` in a thread, so that worker and relay may run in the test's loop meanwhile."""

    settings: Settings
    variables: dict[str, str] = field(default_factory=dict)

    async def __call__(self, *arguments: str, code: int = 0, **variables: str) -> Answer:
        """Run a command that must end with `code`, with more variables of the environment."""
        ours = {name: value for name, value in environment(self.settings).items() if name.startswith("ORGS_")}
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=ours | variables)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return Answer(result.exit_code, result.stdout, result.stderr, result.output)


@pytest.fixture
def orgs(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Orgs:
    """The command line for a test's own database and topics, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ORGS_")]:
        monkeypatch.delenv(name)
    return Orgs(settings)


class Service:
    """A worker and a relay, started and stopped apart."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._running: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    def start(self, *roles: str) -> None:
        """Start roles."""
        for role in roles:
            stop = asyncio.Event()
            part = Worker(self._settings) if role == "worker" else Relay(self._settings)
            self._running[role] = stop, asyncio.create_task(part.run(stop), name=role)

    async def stop(self, *roles: str) -> None:
        """Drain and end roles, all if none is named; raises what one of them raised."""
        ending = [self._running.pop(role) for role in roles or list(self._running)]
        for stop, _ in ending:
            stop.set()
        for _, task in ending:
            await task

    async def ended(self, role: str) -> BaseException | None:
        """Wait for a role to end by itself; what it raised."""
        _, task = self._running.pop(role)
        await asyncio.wait({task}, timeout=30)
        assert task.done()
        return task.exception()


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    """Nothing started yet; what a test starts ends with it."""
    set_up_logging(LogSettings(level="error", format="json"))  # a command's output is its own
    service = Service(settings)
    yield service
    await service.stop()


@pytest.fixture
async def running(service: Service) -> Service:
    """A worker and a relay."""
    service.start("worker", "relay")
    return service


class Acting:
    """Sends commands on behalf of people."""

    def __init__(self, client: OrganizationClient) -> None:
        self._client = client

    async def __call__(self, actor: str, commands: Iterable[Command]) -> None:
        """Send commands, and wait until all are applied."""
        async for result in self._client.on_behalf_of(actor).execute_many(commands):
            assert result.outcome == Outcome.APPLIED, result.problem


@pytest.fixture
async def act(settings: Settings, running: Service) -> AsyncIterator[Acting]:
    """Somebody does something, and it is decided."""
    assert running
    async with publish.connect(settings.kafka, actor="nobody", timeout_s=30) as client:
        yield Acting(client)
