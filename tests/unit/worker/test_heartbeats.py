"""What a worker tells of itself: whether it is ready for commands."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretStr

from org_service.errors import RetryError, UnreachableError
from org_service.settings import DatabaseSettings, Settings
from org_service.worker.worker import Worker

NOWHERE = Settings(database=DatabaseSettings(url=SecretStr("postgresql://127.0.0.1:1/orgs")))


async def answers() -> None:
    return


async def is_away() -> None:
    raise ConnectionError


def joined(
    *,
    assigned: int | None = 3,
    outage: str | None = None,
    reference_outage: str | None = None,
    ping: Any = answers,
    sick: str | None = None,
    reference_sick: str | None = None,
) -> Worker:
    """A worker that has joined its groups, and what became of it since."""
    worker = Worker(NOWHERE)
    worker._subscriber = cast("Any", SimpleNamespace(assigned=assigned, ping=ping, sick=sick))
    worker._reference = cast("Any", SimpleNamespace(assigned=assigned, sick=reference_sick))
    worker._applier = cast("Any", SimpleNamespace(outage=outage, check=worker._applier.check, check_parked=None))
    worker._reference_applier = cast("Any", SimpleNamespace(outage=reference_outage))
    return worker


async def test_a_worker_that_joined_and_has_partitions_is_ready_even_if_there_are_none_for_it() -> None:
    for assigned in (3, 0):
        checks = joined(assigned=assigned).checks()
        assert await checks["kafka"]() == "answers"
        assert await checks["consumer"]() == await checks["reference"]() == f"{assigned} partitions"


@pytest.mark.parametrize(
    ("worker", "check", "said"),
    [
        (Worker(NOWHERE), "kafka", "not connected yet"),
        (Worker(NOWHERE), "consumer", "no partitions assigned yet"),
        (Worker(NOWHERE), "reference", "no partitions assigned yet"),
        (joined(assigned=None), "consumer", "no partitions assigned yet"),
        (joined(assigned=None), "reference", "no partitions assigned yet"),
        (joined(outage="Postgres is away"), "consumer", "the current batch waits: Postgres is away"),
        (joined(sick="orgs.commands, partition 3"), "consumer", "cannot be read: orgs.commands, partition 3"),
        (joined(reference_sick="orgs.staff, partition 1"), "reference", "cannot be read: orgs.staff, partition 1"),
        (joined(reference_outage="Postgres is away"), "reference", "reference data wait: Postgres is away"),
    ],
)
async def test_the_reason_why_a_worker_is_not_ready_is_reported(worker: Worker, check: str, said: str) -> None:
    with pytest.raises(RetryError) as caught:
        await worker.checks()[check]()
    assert str(caught.value) == said


@pytest.mark.parametrize("check", ["kafka", "postgres"])
async def test_a_server_that_does_not_answer_keeps_a_worker_from_being_ready(check: str) -> None:
    with pytest.raises((OSError, UnreachableError)):
        await joined(ping=is_away).checks()[check]()
