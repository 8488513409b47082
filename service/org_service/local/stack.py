"""The stack of `orgs up`, as another program of the same folder sees it.

A `LocalStack` is the permission to do harm: what plants damage asks for one, and only `connect` gives it, where the
settings in force name the very servers that the `orgs up` of this folder has started.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Sequence
from pathlib import Path
from typing import Any, Final, Self

from org_service.errors import PreconditionError
from org_service.local.roles import CURRENT, Standing
from org_service.settings import Settings

_NONE: Final = (
    "this works on the stack of `orgs up` alone, started in this folder, with Kafka and Postgres of its own: {}. "
    "Nothing was done."
)


class _Line:
    """One connection to the socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, **asked: Any) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            PreconditionError: `orgs up` says no, or has ended.
        """
        self._writer.write(json.dumps(asked).encode() + b"\n")
        line = await self._reader.readline()
        if not line:
            raise PreconditionError(_NONE.format("it has just ended"))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PreconditionError(answer["error"])
        return answer


class LocalStack:
    """A running `orgs up`. See `connect`."""

    def __init__(self, socket: Path, said: dict[str, Any]) -> None:
        """Use `connect`, which makes sure that there is one."""
        self._socket = socket
        self.kafka_logs = Path(said["kafka_logs"])
        """Where the broker keeps a folder for each partition."""

    @classmethod
    async def connect(cls, socket: Path, settings: Settings) -> Self:
        """Find the `orgs up` of this folder.

        Raises:
            PreconditionError: There is none, it works on servers that others started, or the settings name others.
        """
        async with _connected(socket) as line:
            said = await line.ask(do="describe")
        ours = settings.kafka.bootstrap_servers, settings.database.url.get_secret_value()
        if ours != (said["bootstrap_servers"], said["database_url"]):
            raise PreconditionError(_NONE.format("the settings name other servers than those that it started"))
        return cls(socket, said)

    async def roles(self) -> Sequence[Standing]:
        """How each role is."""
        return [Standing(**each) for each in (await self._ask(do="describe"))["roles"]]

    async def start(self, *roles: str) -> None:
        """Start those that don't run; returns before they are ready."""
        await self._ask(do="start", roles=roles)

    async def stop(self, *roles: str) -> None:
        """Drain and end roles."""
        await self._ask(do="stop", roles=roles)

    async def deploy(self, roles: Collection[str], release: str = CURRENT) -> None:
        """Replace roles by those of a release."""
        await self._ask(do="deploy", roles=list(roles), release=release)

    async def back_up(self) -> None:
        """Keep a copy of the database, the last one alone. Stop all roles before: nobody may be in it."""
        await self._ask(do="back_up")

    async def restore(self) -> None:
        """Put that copy in place of the database."""
        await self._ask(do="restore")

    @contextlib.asynccontextmanager
    async def without_kafka(self) -> AsyncGenerator[None]:
        """Stop Kafka for a block. It starts again behind it, and also if this process dies in it."""
        async with _connected(self._socket) as line:
            await line.ask(do="stop_kafka")
            try:
                yield
            finally:
                await line.ask(do="start_kafka")

    async def _ask(self, **asked: Any) -> dict[str, Any]:
        async with _connected(self._socket) as line:
            return await line.ask(**asked)


@contextlib.asynccontextmanager
async def _connected(socket: Path) -> AsyncGenerator[_Line]:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError as error:
        raise PreconditionError(_NONE.format("none is running here")) from error
    try:
        yield _Line(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
