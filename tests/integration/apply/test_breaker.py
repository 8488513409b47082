"""What our code fails on in a batch is judged before any of it is parked, on a real Postgres."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from prometheus_client import REGISTRY

from org_events.commands import CreateOrganization
from org_service.apply.breaker import Breaker
from org_service.domain.requests import Record, Request, Unreadable
from org_service.drilling.builds import Build
from org_service.errors import SystemicError
from org_service.settings import Settings
from org_service.wire.commands import read
from tests.integration.apply.applying import created
from tests.support.appliers import applying
from tests.support.records import FakeRecord, record_of

pytestmark = pytest.mark.integration


async def count(database: asyncpg.Connection, table: str) -> object:
    return await database.fetchval(f"SELECT count(*) FROM {table}")


def trips(why: str) -> float:
    return REGISTRY.get_sample_value("orgs_worker_breaker_trips_total", {"why": why}) or 0


async def test_a_build_that_raises_on_a_quarter_of_commands_parks_none_of_them(
    settings: Settings, database: asyncpg.Connection
) -> None:
    """It decides known-good commands; the window tells."""
    one_batch = [record_of(CreateOrganization(org_id=uuid4(), name=f"Org {n}")) for n in range(400)]
    sick = {f"Org {n}" for n in range(400) if n % 4 == 0}
    before = trips("many_failures"), trips("still_failing")
    async with applying(
        settings, breaker=Breaker(settings.worker), decider=Build(lambda command: command.name in sick)
    ) as applier:
        with pytest.raises(SystemicError, match="on 100 of the last 400 commands, of 100 organizations"):
            await applier.apply(one_batch)
    assert (await count(database, "parked"), await count(database, "journal")) == (0, 0)
    assert (trips("many_failures"), trips("still_failing")) == (before[0] + 1, before[1])


def in_lanes(*lanes: tuple[int, Sequence[UUID]]) -> list[FakeRecord]:
    """A batch with a lane a partition: so many commands, those of some organizations among them."""
    records: list[FakeRecord] = []
    for partition, (number, sick) in enumerate(lanes):
        chosen = [*sick, *(uuid4() for _ in range(number - len(sick)))]
        records += [
            record_of(CreateOrganization(org_id=org_id, name=f"Org {partition} {n}"), partition=partition)
            for n, org_id in enumerate(chosen)
        ]
    return records


@pytest.mark.parametrize("turned", [False, True])
async def test_lanes_are_judged_together_before_either_parks(
    settings: Settings, database: asyncpg.Connection, *, turned: bool
) -> None:
    """Alone, the failures of one of them would be too few."""
    few, many = [uuid4() for _ in range(15)], [uuid4() for _ in range(35)]
    lanes = [(100, few), (100, many)]
    records = in_lanes(*(reversed(lanes) if turned else lanes))
    sick = {*few, *many}
    build = Build(lambda command: command.org_id in sick)
    async with applying(settings, breaker=Breaker(settings.worker), decider=build) as applier:
        with pytest.raises(SystemicError, match="on 50 of the last 200 commands, of 50 organizations"):
            await applier.apply(records)
    assert (await count(database, "parked"), await count(database, "journal")) == (0, 0)


async def test_a_lane_whose_failures_are_poison_parks_them_when_the_other_one_has_told(
    settings: Settings, database: asyncpg.Connection
) -> None:
    few = [uuid4() for _ in range(15)]
    build = Build(lambda command: command.org_id in few)
    async with applying(settings, breaker=Breaker(settings.worker), decider=build) as applier:
        await applier.apply(in_lanes((100, few), (100, [])))
    assert REGISTRY.get_sample_value("orgs_worker_breaker_failures") == 15
    assert (await count(database, "parked"), await count(database, "journal")) == (15, 185)


async def test_a_later_batch_does_not_go_first(settings: Settings, database: asyncpg.Connection) -> None:
    build = Build(lambda command: command.name.startswith("Org "))
    async with applying(settings, breaker=Breaker(settings.worker), decider=build) as applier:
        bad = [created(f"Org {number}")[1] for number in range(40)]
        later = [created(f"Fine {number}")[1] for number in range(40)]
        ended = await asyncio.gather(applier.apply(bad), applier.apply(later), return_exceptions=True)
    assert [type(each) for each in ended] == [SystemicError, SystemicError]
    assert await count(database, "journal") == 0


async def test_data_that_the_database_rejects_are_no_failures_of_ours(
    settings: Settings, database: asyncpg.Connection
) -> None:
    await database.execute("ALTER TABLE organization ADD CHECK (name NOT LIKE 'Refused%')")
    records = [created(f"Refused {number}")[1] for number in range(25)]
    async with applying(settings, breaker=Breaker(settings.worker)) as applier:
        await applier.apply(records)
    reasons = await database.fetch("SELECT reason, count(*) FROM parked GROUP BY 1")
    assert [tuple(row) for row in reasons] == [("data_refused", 25)]


async def test_a_build_that_reads_nothing_parks_nothing(settings: Settings, database: asyncpg.Connection) -> None:
    def reading(_: Any) -> Any:
        raise ZeroDivisionError

    async with applying(settings, breaker=Breaker(settings.worker), reader=reading) as applier:
        with pytest.raises(SystemicError, match="known to be good"):
            await applier.apply([created("Acme")[1]])
    assert await count(database, "parked") == 0


class _Ended(BaseException):
    """What ends a lane before any of it is decided."""


async def test_a_lane_that_ends_undecided_is_not_waited_for(settings: Settings, database: asyncpg.Connection) -> None:
    few = [uuid4() for _ in range(15)]

    def reading(record: Record) -> Request | Unreadable:
        if record.partition == 1:
            raise _Ended
        return read(record)

    build = Build(lambda command: command.org_id in few)
    async with applying(settings, breaker=Breaker(settings.worker), decider=build, reader=reading) as applier:
        with pytest.raises(_Ended):
            await applier.apply(in_lanes((100, few), (100, [])))
    assert (await count(database, "parked"), await count(database, "journal")) == (15, 85)
