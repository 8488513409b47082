"""Many commands at a time: in order, in bounded memory, fast."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from uuid import UUID, uuid4, uuid5

import pytest

from org_events import Command, DeactivateOrganization, DeleteOrganization, Result, UpdateOrganization
from org_events.publishing import OrganizationClient, OutcomeUnknown
from tests.integration.client.answering import AnsweringService, Received, result

pytestmark = pytest.mark.integration

NAMESPACE = UUID("0192d3a0-0000-7000-8000-00000000ffff")
ORGS = [uuid5(NAMESPACE, f"org {number}") for number in range(100)]


def numbered(count: int) -> Iterator[tuple[UUID, Command]]:
    """Commands 0, 1, 2 … over a hundred organizations, with ids that are the same in every run."""
    for number in range(count):
        yield uuid5(NAMESPACE, str(number)), UpdateOrganization(org_id=ORGS[number % 100], name=str(number))


async def collect(results: AsyncIterator[Result], command_ids: list[UUID]) -> None:
    async for outcome in results:
        command_ids.append(outcome.command_id)


@pytest.mark.timeout(180)
async def test_twenty_thousand_commands_are_applied_in_order(
    service: AnsweringService, orgs: OrganizationClient, record_property: Callable[[str, object], None]
) -> None:
    count = 20_000
    began = time.perf_counter()
    outcomes = [outcome.command_id async for outcome in orgs.execute_many(numbered(count))]
    took_s = time.perf_counter() - began
    record_property("commands_per_second", round(count / took_s))

    assert outcomes == [uuid5(NAMESPACE, str(number)) for number in range(count)]
    by_organization: dict[bytes, list[int]] = {}
    for command in service.received:
        by_organization.setdefault(command.key, []).append(int(command.body["name"]))
    assert len(by_organization) == 100
    assert all(numbers == sorted(numbers) for numbers in by_organization.values())


async def test_a_second_run_with_the_same_ids_gets_the_first_outcomes(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    positions = iter(range(1, 1_000))
    service.answer = lambda command: result(command, position=next(positions))
    first = [outcome async for outcome in orgs.execute_many(numbered(300))]
    assert [outcome async for outcome in orgs.execute_many(numbered(300))] == first
    assert len(service.received) == 600


async def test_commands_in_flight_are_bounded(service: AnsweringService, orgs: OrganizationClient) -> None:
    taken = given = most = 0

    def source() -> Iterator[tuple[UUID, Command]]:
        nonlocal taken
        for item in numbered(500):
            taken += 1
            yield item

    async for _ in orgs.execute_many(source(), in_flight_max=50):
        most = max(most, taken - given)
        given += 1
    assert given == 500
    # One more is taken from the source before it waits for its turn.
    assert 40 <= most <= 51


async def test_a_bound_of_zero_is_rejected(orgs: OrganizationClient) -> None:
    with pytest.raises(ValueError, match="in_flight_max"):
        await anext(orgs.execute_many([], in_flight_max=0))


async def test_an_outcome_is_yielded_before_a_slow_source_continues(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    go_on = asyncio.Event()

    async def source() -> AsyncIterator[Command]:
        yield UpdateOrganization(org_id=ORGS[0], name="first")
        await go_on.wait()
        yield UpdateOrganization(org_id=ORGS[0], name="second")

    names: list[str] = []
    async for _ in orgs.execute_many(source()):
        names.append(service.received[len(names)].body["name"])
        go_on.set()
    assert names == ["first", "second"]


async def test_an_error_of_the_source_follows_the_outcomes_before_it(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    def source() -> Iterator[tuple[UUID, Command]]:
        yield from numbered(10)
        raise LookupError("line 11")

    outcomes: list[UUID] = []
    with pytest.raises(LookupError, match="line 11"):
        await collect(orgs.execute_many(source()), outcomes)
    assert outcomes == [uuid5(NAMESPACE, str(number)) for number in range(10)]


async def test_the_first_command_without_an_outcome_is_named(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    def answer(command: Received) -> dict[str, object] | None:
        return None if command.body["name"] == "3" else result(command)

    service.answer = answer
    outcomes: list[UUID] = []
    with pytest.raises(OutcomeUnknown) as caught:
        await collect(orgs.execute_many(numbered(10), timeout_s=2), outcomes)
    assert outcomes == [uuid5(NAMESPACE, str(number)) for number in range(3)]
    assert caught.value.command_id == uuid5(NAMESPACE, "3")
    assert caught.value.command == UpdateOrganization(org_id=ORGS[3], name="3")


async def test_leaving_early_stops_sending(service: AnsweringService, orgs: OrganizationClient) -> None:
    taken = 0

    def source() -> Iterator[tuple[UUID, Command]]:
        nonlocal taken
        for item in numbered(10_000):
            taken += 1
            yield item

    async with aclosing(orgs.execute_many(source(), in_flight_max=20)) as outcomes:
        async for _ in outcomes:
            break
    after = taken
    await orgs.restore(uuid4())
    assert taken == after <= 22


async def test_a_command_that_is_there_twice_gets_its_outcome_both_times(
    service: AnsweringService, orgs: OrganizationClient
) -> None:
    """The outcome is here when the command goes out again, waits for its turn, and is handed out before the second."""
    org, ids, silent_about = ORGS[0], [uuid4(), uuid4()], {"first"}
    twice = UpdateOrganization(org_id=org, name="twice")

    def answer(command: Received) -> dict[str, object] | None:
        if command.type in ("org.deactivate", "org.delete"):  # bring the outcomes that were kept back
            return result(service.received[0 if command.type == "org.deactivate" else 1])
        return None if command.body.get("name") in silent_about else result(command)

    async def source() -> AsyncIterator[tuple[UUID, Command]]:
        yield ids[0], UpdateOrganization(org_id=org, name="first")
        yield ids[1], twice
        await orgs.restore(org)  # decided later: the outcome of "twice" is here too
        service.answers.clear()
        silent_about.add("twice")
        yield ids[1], twice
        await orgs.send(DeactivateOrganization(org_id=org))

    service.answer = answer
    outcomes: list[UUID] = []
    async for outcome in orgs.execute_many(source(), timeout_s=5):
        outcomes.append(outcome.command_id)
        if outcomes == ids:
            await orgs.send(DeleteOrganization(org_id=org))
    assert outcomes == [*ids, ids[1]]
