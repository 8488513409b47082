"""What the tests of lost databases decide, lose and write again."""

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from org_service.domain.reasons import OperationState
from org_service.operate import runs
from org_service.operate.restoring.restore import Rebuild, Recover
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.integration.operate.parking import failing_for
from tests.support.idle import wait_until_idle
from tests.support.operating import Service
from tests.support.rehearsing import ends, publish
from tests.support.restoring import Tables, back_up, drop, read_tables, replace_by
from tests.support.sending import Sending, binary

IDLE_S = 60
STUCK = "0a000000-0000-4000-8000-00000000beef"
LEFT, RIGHT = "0a000000-0000-4000-8000-00000000000a", "0a000000-0000-4000-8000-00000000000b"


def command(number: int, command_type: str, org_id: str, **body: Any) -> Sending:
    """A command whose id is always the same."""
    return binary(str(UUID(int=(7 << 96) + number)), command_type, org_id, **body)


async def decide(settings: Settings, service: Service, sendings: Sequence[Sending]) -> None:
    """Let commands be decided and published; those of one organization get stuck."""
    with failing_for({UUID(STUCK)}):
        service.start("worker", "relay")
        await publish(settings, sendings)
        await wait_until_idle(settings, IDLE_S)
        await service.stop()


async def keep(settings: Settings, tool: Rebuild | Recover) -> Operation:
    """Plan."""
    operation, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="the database is lost")
    return operation


async def rebuild(settings: Settings) -> Operation:
    """Plan and run."""
    done = await runs.run(settings, (await keep(settings, await Rebuild.make(settings))).id)
    assert done.state == OperationState.DONE, done.error
    return done


async def recover(settings: Settings) -> Operation:
    """Plan and run."""
    done = await runs.run(settings, (await keep(settings, await Recover.make(settings))).id)
    assert done.state == OperationState.DONE, done.error
    return done


def same(left: Tables, right: Tables) -> None:
    """See that databases are equal, and which table is not."""
    for name, before, after in zip(Tables._fields, left, right, strict=True):
        assert after == before, name


@pytest.fixture
async def copies(settings: Settings) -> AsyncIterator[list[str]]:
    """The names of copies to be dropped."""
    names: list[str] = []
    yield names
    for name in names:
        await drop(settings, name)


class Loss:
    """A database that is lost with all, or with what came after a backup."""

    def __init__(self, settings: Settings, template: str, copies: list[str], *, has_backup: bool) -> None:
        self.settings = settings
        self._template = template
        self._copies = copies
        self._has_backup = has_backup

    async def back_up(self) -> None:
        """Keep what is there now, in one of the two cases."""
        if self._has_backup:
            self._copies.append(await back_up(self.settings))

    async def come_back(self) -> Operation:
        """Lose the database, write it from the topics, and see that it is equal and that nothing was published."""
        lost, sent = await read_tables(self.settings), await ends(self.settings)
        await replace_by(self.settings, self._copies[-1] if self._has_backup else self._template)
        done = await (recover if self._has_backup else rebuild)(self.settings)
        same(lost, await read_tables(self.settings))
        assert await ends(self.settings) == sent
        return done


@pytest.fixture(params=["rebuild", "recover"])
def loss(request: pytest.FixtureRequest, settings: Settings, template_database: str, copies: list[str]) -> Loss:
    """A loss of each kind."""
    return Loss(settings, template_database, copies, has_backup=request.param == "recover")
