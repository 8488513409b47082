"""Commands from operators: one at a time, or a whole file of organizations."""

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

from org_events.commands import Command
from org_events.publishing.client import OrganizationClient
from org_events.results import Result
from org_service.kafka.connection import admin
from org_service.operate.organizations_file import BadLine, Row
from org_service.settings import KafkaSettings

SOURCE = "/orgs/cli"
"""The `ce_source` of operators' commands."""


class Imported(NamedTuple):
    """The outcome of one line of a file."""

    row: Row
    result: Result


@asynccontextmanager
async def connect(
    kafka: KafkaSettings, *, actor: str | None = None, token: str | None = None, timeout_s: float
) -> AsyncGenerator[OrganizationClient]:
    """A client, started, for commands on behalf of `actor`, or of whoever the token names.

    Raises:
        KafkaError: Kafka can't be reached. A service waits for that, an operator wants to know at once.
        ClientError: As `OrganizationClient.start`.
    """
    async with admin(kafka):
        options: dict[str, Any] = kafka.connection()
    async with OrganizationClient(
        source=SOURCE, topics=kafka.topics, actor=actor, token=token, timeout_s=timeout_s, **options
    ) as client:
        yield client


async def import_rows(
    client: OrganizationClient, rows: Iterable[Row | BadLine], on_bad_line: Callable[[BadLine], None]
) -> AsyncIterator[Imported]:
    """Send rows as commands, thousands at a time, and yield their outcomes in the order of the rows.

    May be run again with the same rows, after whatever failure: command ids come from what a row says, so nothing
    is done twice and each row gets its first outcome again.

    Args:
        client: Started.
        rows: Read as fast as outcomes come.
        on_bad_line: Is told of each line that can't be sent, as it is met.

    Raises:
        OutcomeUnknown: A row has no outcome in time. All rows before it were yielded.
    """
    sent: deque[Row] = deque()

    def commands() -> Iterator[tuple[UUID, Command]]:
        for row in rows:
            if isinstance(row, BadLine):
                on_bad_line(row)
            else:
                sent.append(row)
                yield row.command_id, row.command

    async for result in client.execute_many(commands()):
        yield Imported(sent.popleft(), result)
