"""`python -m tests.support.killed_orgs POINT ARGUMENT...`: `orgs` with these arguments, until it passes a named point.

There it dies by SIGKILL: nothing is rolled back, closed or said.
"""

import os
import signal
import sys
from typing import Any, cast

from org_service import probes
from org_service.cli.app import app
from org_service.probes import Point


async def _die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    point, *arguments = sys.argv[1:]
    probes.listeners[cast("Point", point)] = _die
    app(arguments)
