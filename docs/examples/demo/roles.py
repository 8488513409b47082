"""Worker and relay as processes of their own, as in production."""

import asyncio
import os
import sys
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from org_local import ports
from org_local.errors import ServerFailedError
from org_local.server import Child, Program
from org_service.settings import Settings

START_TIMEOUT_S = 60.0
"""For worker and relay to be ready; seconds, but on a busy machine."""
READY_POLL_S = 0.05


class Role(NamedTuple):
    """A worker or relay as a process of its own."""

    child: Child
    ready_url: str

    async def ready(self) -> None:
        """Wait until it says that it is ready, as an orchestrator would."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await asyncio.to_thread(self._is_ready):
                if not self.child.running:
                    raise ServerFailedError(f"the {self.child.program.name} ended")
                await asyncio.sleep(READY_POLL_S)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(self.ready_url, timeout=2):
                return True
        except OSError:
            return False


@contextmanager
def role(name: str, settings: Settings, folder: Path) -> Generator[Role]:
    """Start a worker or relay; it ends with this process, however that ends."""
    port = ports.pick(None, set())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ORGS_")}
    environment |= {
        "ORGS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "ORGS_DATABASE__URL": settings.database.url.get_secret_value(),
        f"ORGS_{name.upper()}__PORT": str(port),
        "ORGS_AUTH__COMMANDS": "trusted",  # this broker is closed to all but the demo
    }
    child = Child(
        Program(
            name=name,
            argv=[sys.executable, "-m", "org_service.cli", "serve", "--role", name],
            log=folder / f"{name}.log",
            env=environment,
            stop=(("SIGTERM", 15.0),),
        )
    )
    try:
        yield Role(child, f"http://{ports.LOOPBACK}:{port}/readyz")
    finally:
        child.end(orderly=True)
