"""The whole stack: which servers to start, where their data are, and who may use them."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from org_local import jars, ports
from org_local.errors import DataFolderInUseError, LocalStackError
from org_local.kafka import Broker, Kafka, check_folder, new_cluster_id
from org_local.postgres import Postgres
from org_local.server import runs

BOOTSTRAP_SERVERS_VARIABLE = "ORGS_KAFKA__BOOTSTRAP_SERVERS"
DATABASE_URL_VARIABLE = "ORGS_DATABASE__URL"
_TAKE_OVER_TIMEOUT_S = 40.0
"""How long the servers of a killed owner may take to stop: both supervisors' patience, and some."""


def report(message: str) -> None:
    """Print a line of progress to standard error."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201 (progress for a person is this function's purpose)


class Stack:
    """A running stack; a context manager that stops what was started. See `start`."""

    def __init__(
        self, *, bootstrap_servers: str, database_url: str, kafka: Kafka | None, postgres: Postgres | None
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.database_url = database_url
        self._kafka = kafka
        self._postgres = postgres
        self._release = contextlib.ExitStack()

    @property
    def is_ours(self) -> bool:
        """Whether both servers were started here; else the environment names at least one."""
        return self._kafka is not None and self._postgres is not None

    @property
    def kafka(self) -> Kafka:
        """The Kafka started here.

        Raises:
            LocalStackError: an existing one is used.
        """
        if self._kafka is None:
            raise LocalStackError(f"Kafka was not started here: {BOOTSTRAP_SERVERS_VARIABLE} names an existing one")
        return self._kafka

    @property
    def postgres(self) -> Postgres:
        """The Postgres started here.

        Raises:
            LocalStackError: an existing one is used.
        """
        if self._postgres is None:
            raise LocalStackError(f"Postgres was not started here: {DATABASE_URL_VARIABLE} names an existing one")
        return self._postgres

    def check(self) -> None:
        """See that the servers started here still run.

        Raises:
            ServerFailedError: one ended without being asked to.
        """
        for server in (*(self._kafka.brokers if self._kafka else ()), *([self._postgres] if self._postgres else ())):
            server.check()

    def stop(self) -> None:
        """Stop the servers started here and remove their data if these were temporary. May be called again."""
        self._release.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start(
    data_dir: Path | None = None,
    *,
    progress: Callable[[str], None] = report,
    brokers: int = 1,
    kafka_heap_mb: int = 512,
) -> Stack:
    """Start Kafka and Postgres, or use those that the environment names.

    A server whose variable (`ORGS_KAFKA__BOOTSTRAP_SERVERS`, `ORGS_DATABASE__URL`) is set isn't started; the value is
    returned as it is. The servers end with this process, however it ends. Several stacks may run at once, each with
    a data folder of its own.

    Args:
        data_dir: where the data live, reused at the next start (same cluster, same database, same ports if they are
            free); None for a temporary folder, removed at the end.
        progress: Called with what takes time.
        brokers: 1, or 3 with replication factor 3.
        kafka_heap_mb: the heap of each broker.

    Raises:
        LocalStackError: what, why, and what to do; nothing runs then.
    """
    bootstrap_servers = os.environ.get(BOOTSTRAP_SERVERS_VARIABLE)
    database_url = os.environ.get(DATABASE_URL_VARIABLE)
    if bootstrap_servers and database_url:
        return Stack(bootstrap_servers=bootstrap_servers, database_url=database_url, kafka=None, postgres=None)
    with _explained(data_dir), contextlib.ExitStack() as undo:
        if not bootstrap_servers:
            check_folder(data_dir.resolve() if data_dir else Path(tempfile.gettempdir()))
        folder = _Folder(data_dir, brokers, undo)
        kafka_jars = None if bootstrap_servers else jars.ensure(progress)
        kafka = folder.kafka(kafka_jars, kafka_heap_mb) if kafka_jars else None
        postgres = None if database_url else folder.postgres()
        folder.save()
        servers = [server for server in (kafka, postgres) if server]
        for server in servers:
            undo.callback(server.stop, orderly=not folder.temporary)
        began = time.monotonic()
        progress("starting " + " and ".join(type(server).__name__ for server in servers))
        _start_together(servers)
        progress(f"up in {time.monotonic() - began:.1f} s, data in {folder.path}")
        stack = Stack(
            bootstrap_servers=bootstrap_servers or (kafka.bootstrap_servers if kafka else ""),
            database_url=database_url or (postgres.url if postgres else ""),
            kafka=kafka,
            postgres=postgres,
        )
        stack._release = undo.pop_all()
        return stack


@contextlib.contextmanager
def _explained(data_dir: Path | None) -> Generator[None]:
    try:
        yield
    except OSError as error:  # a full disk, a file where a folder should be, too few rights
        where = data_dir or f"a temporary folder below {tempfile.gettempdir()}"
        raise LocalStackError(f"the local stack with its data in {where} cannot start: {error}") from error


def _start_together(servers: list[Kafka | Postgres]) -> None:
    with ThreadPoolExecutor(len(servers)) as pool:
        starts = [pool.submit(server.start) for server in servers]
        try:
            for done in starts:
                done.result()
        except BaseException:  # ^C too: what still starts needn't be waited for
            for server in servers:
                server.stop(orderly=False)
            raise


class _Folder:
    """The data folder: held by one stack at a time, remembers cluster id and ports, which it claims while it's held."""

    def __init__(self, path: Path | None, brokers: int, undo: contextlib.ExitStack) -> None:
        self.temporary = path is None
        if path is None:
            self.path = Path(tempfile.mkdtemp(prefix="org-local-"))
            if os.geteuid() == 0:
                self.path.chmod(0o711)  # Postgres runs as somebody else, who must get through
            undo.callback(shutil.rmtree, self.path, ignore_errors=True)
        else:
            self.path = path.resolve()
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = undo.enter_context((self.path / "lock").open("a+"))
        except PermissionError as error:
            raise LocalStackError(
                f"{self.path} belongs to another user (was it created as root?); remove it, or choose "
                "another data folder"
            ) from error
        self._hold()
        self._state_path = self.path / "stack.json"
        self._state = self._load(brokers)
        self._undo = undo
        self._claims: list[socket.socket] = []
        self._mark = f"org-local-{secrets.token_hex(8)}"  # by which a server of this stack is known
        for log in self.path.glob("*.log"):
            log.replace(log.with_suffix(".log.old"))

    def _hold(self) -> None:
        """Take the lock, which the supervisors inherit: it lasts until the last server is gone."""
        deadline = time.monotonic() + _TAKE_OVER_TIMEOUT_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                holder = _read_pid(self._lock)
                if _lives(holder) or time.monotonic() > deadline:
                    raise DataFolderInUseError(
                        f"{self.path} is in use by another local stack, process {holder}; "
                        "stop that one, or choose another data folder"
                    ) from error
                time.sleep(0.1)  # the holder was killed, its servers are stopping
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()

    def _load(self, brokers: int) -> dict[str, Any]:
        if not self._state_path.exists():
            return {"cluster_id": new_cluster_id(), "brokers": brokers, "ports": {}}
        state: dict[str, Any] = json.loads(self._state_path.read_text())
        if state["brokers"] != brokers:
            raise LocalStackError(
                f"{self.path} contains a Kafka of {state['brokers']} broker(s), not {brokers}; use another folder"
            )
        return state

    def save(self) -> None:
        """Remember cluster id and ports for the next start."""
        fresh = self._state_path.with_suffix(".new")
        fresh.write_text(json.dumps(self._state, indent=1))
        fresh.rename(self._state_path)

    def _port(self, name: str) -> int:
        port, claim = ports.claim(self._state["ports"].get(name))
        self._claims.append(self._undo.enter_context(claim))
        self._state["ports"][name] = port
        return port

    def _kept(self) -> tuple[int, ...]:
        return self._lock.fileno(), *(claim.fileno() for claim in self._claims)

    def kafka(self, kafka_jars: Path, heap_mb: int) -> Kafka:
        """Kafka with its data here, not started."""
        nodes = range(1, self._state["brokers"] + 1)
        node_ports = [(self._port(f"kafka-{node}"), self._port(f"controller-{node}")) for node in nodes]
        return Kafka(
            [
                Broker(
                    node,
                    self.path,
                    ports=node_ports,
                    cluster_id=self._state["cluster_id"],
                    jars=kafka_jars,
                    heap_mb=heap_mb,
                    mark=self._mark,
                    remove=self.path if self.temporary else None,
                    keep_fds=self._kept(),
                )
                for node in nodes
            ]
        )

    def postgres(self) -> Postgres:
        """Postgres with its data here, not started."""
        return Postgres(
            self.path,
            port=self._port("postgres"),
            mark=self._mark,
            remove=self.path if self.temporary else None,
            keep_fds=self._kept(),
        )


def _lives(pid: int) -> bool:
    try:
        return pid > 0 and runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _read_pid(lock: IO[str]) -> int:
    lock.seek(0)
    with contextlib.suppress(ValueError):
        return int(lock.read())
    return 0
