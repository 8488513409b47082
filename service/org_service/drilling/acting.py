"""What drills do to bring an incident about, and to tell what became of it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from org_events.commands import Command, CreateOrganization, UpdateOrganization
from org_events.publishing import OrganizationClient
from org_events.results import Outcome
from org_service.drilling.drill import Ground, Mark
from org_service.drilling.looking import POLL_S, find_unready
from org_service.errors import PreconditionError, RetryError
from org_service.kafka.client import KafkaError
from org_service.operate.progress import behind
from org_service.settings import Settings
from org_service.store import organizations, outcomes
from org_service.store.database import Database

SOURCE = "/drill"
ACTOR = "drill"
ANSWER_S = 60.0
"""For an outcome, from a service that has just started."""
SETTLE_S = 60.0
"""For what was sent to be published: seconds, unless something is wrong, or the machine is very busy."""


@asynccontextmanager
async def publisher(
    settings: Settings, *, source: str = SOURCE, token: str | None = None
) -> AsyncGenerator[OrganizationClient]:
    """A service that publishes commands; with a token on behalf of its user."""
    async with OrganizationClient(
        source=source,
        topics=settings.kafka.topics,
        actor=None if token else ACTOR,
        token=token,
        timeout_s=ANSWER_S,
        **settings.kafka.connection(),
    ) as client:
        yield client


def creations(number: int, called: str) -> list[CreateOrganization]:
    """Commands that create organizations, whose names nobody has."""
    ids = [uuid4() for _ in range(number)]
    return [CreateOrganization(org_id=org_id, name=f"{called} {org_id.hex[:8]}") for org_id in ids]


def renames(org_id: UUID, *names: str) -> list[UpdateOrganization]:
    """Commands that rename an organization, one after the other; its id makes the names its own."""
    return [UpdateOrganization(org_id=org_id, name=f"{name} {org_id.hex[:8]}") for name in names]


async def apply(client: OrganizationClient, commands: Sequence[Command]) -> None:
    """Send commands that must be applied, and wait for that.

    Raises:
        PreconditionError: One was not.
    """
    async for result in client.execute_many(commands):
        if result.outcome != Outcome.APPLIED:
            raise PreconditionError(f"the stack does not work as it should: a command was {result.outcome}.")


async def leave(client: OrganizationClient, commands: Sequence[Command]) -> list[str]:
    """Send commands in order and don't wait for their outcomes; returns their ids."""
    return [str((await client.send(each)).command_id) for each in commands]


async def settle(ground: Ground, *roles: str) -> None:
    """Wait until some roles are ready, and all that was sent is decided and published.

    Raises:
        PreconditionError: It isn't in time.
    """

    async def is_settled() -> bool:
        return not await find_unready(ground, roles) and (await behind(ground.settings)).idle

    await until(is_settled, SETTLE_S, "not everything is decided and published")


async def until(is_so: Callable[[], Awaitable[bool]], timeout_s: float, otherwise: str) -> None:
    """Wait until something is so; what can't be told in an outage isn't.

    Raises:
        PreconditionError: It isn't in time; `otherwise` says what is then.
    """
    deadline_s = time.monotonic() + timeout_s
    while not await _is_so(is_so):
        if time.monotonic() > deadline_s:
            raise PreconditionError(f"{otherwise}, {timeout_s:.0f} s later: look at `orgs status`.")
        await asyncio.sleep(POLL_S)


async def _is_so(is_so: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await is_so()
    except (KafkaError, RetryError, OSError):
        return False


async def judge_commands(ground: Ground, ids: Collection[str]) -> Mark:
    """Whether each command has a final outcome."""
    undecided = [each for each in ids if not await _is_decided(ground, UUID(each))]
    said = f"{len(undecided)} of {len(ids)} have none" if undecided else f"{len(ids)} of {len(ids)}"
    return Mark("each command that was sent has its final outcome", not undecided, said)


async def _is_decided(ground: Ground, command_id: UUID) -> bool:
    async with Database(ground.settings.database, "reader", direct=True).connect() as conn:
        return command_id in await outcomes.find_journaled(conn, [command_id])


async def read_versions(ground: Ground, ids: Collection[str]) -> dict[str, int]:
    """The versions of those organizations that are there."""
    async with Database(ground.settings.database, "reader", direct=True).connect() as conn:
        found = await organizations.find_versions(conn, [UUID(each) for each in ids])
    return {str(org_id): version for org_id, version in found.items()}
