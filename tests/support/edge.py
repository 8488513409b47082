"""The edge with worker and relay behind it, in a thread with a loop of its own; tokens, and who belongs where."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Self
from uuid import UUID

import httpx2

from org_service.console.console import Console
from org_service.edge.edge import Edge
from org_service.operate.operator import Operator
from org_service.relay import Relay
from org_service.settings import EdgeSettings, Settings
from org_service.worker.worker import Worker
from tests.support import documented, plain_http
from tests.support.database import execute
from tests.support.issuer import Signer, auth, ed_key
from tests.support.waiting import until

READY_TIMEOUT_S = 40


class People:
    """Tokens of an issuer, and what its users are in which organizations."""

    def __init__(self, folder: Path) -> None:
        self.signer: Signer = ed_key()
        self.auth = auth(folder, self.signer, commands="trusted")

    def token(self, user: str, signer: Signer | None = None, **claims: Any) -> str:
        """A token that is valid for an hour."""
        now = int(time.time())
        return (
            (signer or self.signer)
            .token(sub=user, **{"iat": now - 60, "nbf": now - 60, "exp": now + 3600, **claims})
            .decode()
        )

    def headers(self, user: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of a request by a user."""
        return {"authorization": f"Bearer {self.token(user)}", **(headers or {})}


def with_edge(settings: Settings, people: People, **edge: Any) -> Settings:
    """The settings with that issuer, and an edge on a free port whose rate hinders no test."""
    bounds = {"port": 0, "health_port": 0, "rate_per_s": 100_000, "rate_burst": 100_000, **edge}
    return settings.model_copy(update={"auth": people.auth, "edge": EdgeSettings.model_validate(bounds)})


async def add_member(settings: Settings, user: str, org_id: str | UUID, role: str, *, active: bool = True) -> None:
    """Make a user a member of an organization."""
    await execute(
        settings,
        "INSERT INTO membership (user_id, org_id, role, joined_at, active) VALUES ($1, $2, $3, $4, $5)",
        user,
        UUID(str(org_id)),
        role,
        datetime.now(UTC),
        active,
    )


async def add_staff(settings: Settings, user: str) -> None:
    """Make a user staff."""
    await execute(settings, "INSERT INTO staff (user_id) VALUES ($1) ON CONFLICT DO NOTHING", user)


@asynccontextmanager
async def running(settings: Settings, *, worker: bool = True) -> AsyncIterator[Edge]:
    """The edge, ready, in this loop; with a worker and a relay unless there shall be no outcomes.

    Where the operators' page is enabled it is mounted, and the role that carries out its runs is there too.
    """
    stop, stop_edge = asyncio.Event(), asyncio.Event()
    behind: list[Any] = [Worker(settings), Relay(settings)] if worker else []
    console = Console(settings) if settings.console.enabled else None
    if console is not None:
        behind.append(Operator(settings))
    async with Edge(settings, console) as edge:
        tasks = [asyncio.create_task(part.run(stop)) for part in behind]
        serving = asyncio.create_task(edge.run(stop_edge))
        try:
            await _ready([*behind, edge], [*tasks, serving])
            yield edge
        finally:
            stop_edge.set()
            await serving
            stop.set()
            await asyncio.gather(*tasks)


async def _ready(parts: list[Any], tasks: list["asyncio.Task[None]"]) -> None:
    async def is_ready(part: Any) -> bool:
        for task in tasks:
            if task.done():
                task.result()
        try:
            seen = [await check() for check in part.checks().values()]
        except Exception:
            return False
        return not any("503" in detail for detail in seen)

    for part in parts:
        await until(partial(is_ready, part), timeout_s=READY_TIMEOUT_S)


class Site:
    """A running service and a client of it, in a thread, for tests that share one; or an edge alone."""

    def __init__(self, settings: Settings, people: People, *, worker: bool = True) -> None:
        self.settings = settings
        self.people = people
        self.url = ""
        self.health_url = ""
        self._worker = worker
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started: Future[tuple[int, int]] = Future()
        self._thread = Thread(target=self._run, name="edge under test")

    def __enter__(self) -> Self:
        self._thread.start()
        port, health_port = self._started.result(READY_TIMEOUT_S * 2)
        self.url, self.health_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{health_port}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with running(self.settings, worker=self._worker) as edge:
            self._started.set_result((edge.port, edge.health_port))
            await self._stop.wait()

    @contextmanager
    def client(self, user: str | None = None) -> Iterator[httpx2.Client]:
        """A client that acts for a user; every answer is held against the OpenAPI document."""
        headers = {} if user is None else self.people.headers(user)
        hooks = {"response": [_documented]}
        with plain_http.client(base_url=self.url, headers=headers, timeout=30, event_hooks=hooks) as client:
            yield client

    def create(self, name: str, **fields: Any) -> str:
        """Create an organization as staff; returns its id."""
        with self.client("root") as root:
            made = root.post("/v1/orgs", json={"name": name, **fields})
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def member(self, user: str, org_id: str, role: str = "admin", **others: Any) -> None:
        """Make a user a member of an organization."""
        asyncio.run(add_member(self.settings, user, org_id, role, **others))

    def execute(self, statement: str, *arguments: Any) -> None:
        """Run a statement as the superuser of the database."""
        asyncio.run(execute(self.settings, statement, *arguments))


def _documented(response: httpx2.Response) -> None:
    response.read()
    documented.check(response)
