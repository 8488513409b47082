"""The roles of `orgs up`, each of which can be stopped, started and replaced while the others go on.

In production an orchestrator does that to processes; here all share one process and one loop, as decision 0049 says. A
role that ends because an operator must act first leaves the others running, and the servers with them: whoever acts
needs both. A defect ends all.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from org_service import runtime
from org_service.domain.fold import Decider
from org_service.errors import PreconditionError, StopError
from org_service.runtime import ServiceRole
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger
from org_service.telemetry.tracing import tracing

log = get_logger(__name__)

ROLES: Final[tuple[ServiceRole, ...]] = ("worker", "relay", "edge", "operate")
CURRENT: Final = "current"
"""The release of this folder, which decides as `domain.decide` says."""

Releases = Mapping[str, Decider | None]
"""What a worker may be replaced by, by name; all of them have `CURRENT`."""


class Standing(NamedTuple):
    """How a role is."""

    role: str
    state: str
    """`running`, `stopped`, or `ended` where it ended by itself."""
    release: str
    url: str
    """Of its health pages, while it runs."""
    why: str = ""
    """It ended by itself."""


@dataclass
class _Run:
    """One life of a role."""

    stop: asyncio.Event
    task: "asyncio.Task[None]" = field(init=False)


class Roles:
    """All roles of one process. `run` once; the rest from the same loop, one at a time."""

    def __init__(self, settings: Settings, releases: Releases, say: Callable[[str], None]) -> None:
        """Make them; nothing runs yet.

        Args:
            settings: With a port for each health page: a port of 0 would be known to nobody.
            releases: What a worker may be replaced by.
            say: Called with what whoever started us should read.
        """
        self._settings = settings
        self._releases = releases
        self._say = say
        self._running: dict[ServiceRole, _Run] = {}
        self._ended: dict[ServiceRole, str] = {}
        self._release: dict[ServiceRole, str] = dict.fromkeys(ROLES, CURRENT)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event) -> None:
        """Run all roles until `stop` is set, then drain them.

        Raises:
            Exception: A defect, or a setting that can't be used, ended one. All are closed.
        """
        async with tracing(self._settings.tracing, ROLES):
            self.start(ROLES)
            runtime.spare_collections(with_requests=True)
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({stopping, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await self.stop(ROLES)
            if self._failed.done():
                self._failed.result()

    def start(self, roles: Collection[ServiceRole]) -> None:
        """Start those that don't run, each as the release that it was last. Returns before they are ready."""
        for role in roles:
            if role not in self._running:
                self._start(role)

    async def stop(self, roles: Collection[ServiceRole]) -> None:
        """Drain and end roles: the edge first, because its requests wait for the others."""
        waves: list[list[ServiceRole]] = [["edge"], [role for role in roles if role != "edge"]]
        for some in waves if "edge" in roles else waves[1:]:
            ending = [self._running[role] for role in some if role in self._running]
            for each in ending:
                each.stop.set()
            await asyncio.gather(*(each.task for each in ending), return_exceptions=True)
            for role in some:
                self._ended.pop(role, None)

    async def deploy(self, roles: Collection[ServiceRole], release: str = CURRENT) -> None:
        """Replace roles by those of a release.

        Raises:
            PreconditionError: There is no such release of this role.
        """
        if release not in self._releases or (release != CURRENT and set(roles) != {"worker"}):
            raise PreconditionError(f"there is no release {release!r} of {', '.join(roles)}")
        await self.stop(roles)
        self._release |= dict.fromkeys(roles, release)
        self.start(roles)

    def describe(self) -> Sequence[Standing]:
        """How each of them is."""
        return [self._stand(role) for role in ROLES]

    def _stand(self, role: ServiceRole) -> Standing:
        release = self._release[role]
        if role in self._running:
            return Standing(role, "running", release, health_url(self._settings, role))
        why = self._ended.get(role)
        return Standing(role, "stopped" if why is None else "ended", release, "", why or "")

    def _start(self, role: ServiceRole) -> None:
        self._ended.pop(role, None)
        part = runtime.make_role(role, self._settings, self._releases[self._release[role]])
        run = self._running[role] = _Run(asyncio.Event())
        run.task = asyncio.create_task(runtime.serve_parts({role: part}, run.stop, self._settings), name=role)
        run.task.add_done_callback(lambda task: self._on_end(role, task))

    def _on_end(self, role: ServiceRole, task: "asyncio.Task[None]") -> None:
        asked = self._running.pop(role).stop.is_set()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StopError):
            self._ended[role] = str(error)
            log.error("a role has ended", role=role, why=str(error))
            self._say(f"{role} has ended: {error} `orgs roles start {role}` starts it again.")
        elif error is not None and not self._failed.done():
            self._failed.set_exception(error)
        elif not asked and not self._failed.done():
            self._failed.set_exception(RuntimeError(f"{role} ended without a reason"))


def health_url(settings: Settings, role: ServiceRole) -> str:
    """Where a role has its health pages."""
    named = {
        "worker": (settings.worker.host, settings.worker.port),
        "relay": (settings.relay.host, settings.relay.port),
        "edge": (settings.edge.health_host, settings.edge.health_port),
        "operate": (settings.operate.host, settings.operate.port),
    }
    host, port = named[role]
    return f"http://{host}:{port}"
