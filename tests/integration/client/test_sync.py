"""The client without an event loop, in threads as a script has them, on a real Kafka."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from uuid import UUID, uuid4, uuid5

import pytest

from org_events import Command, RestoreOrganization, Topics, UpdateOrganization
from org_events.publishing import KafkaUnavailable, NotConnected, OutcomeUnknown, SyncOrganizationClient
from tests.integration.client.answering import AnsweringService, Received, result

pytestmark = pytest.mark.integration

T = TypeVar("T")
ORG = UUID("0192d3a0-0000-7000-8000-000000000001")
NAMESPACE = UUID("0192d3a0-0000-7000-8000-00000000ffff")


def silent(_: Received) -> None:
    return None


async def in_script(script: Callable[..., T], *arguments: Any) -> T:
    """Run it in a thread, as a program of its own; the service answers from this loop."""
    return await asyncio.to_thread(script, *arguments)


@pytest.fixture
def options(bootstrap_servers: str, topics: Topics) -> dict[str, Any]:
    return {"bootstrap_servers": bootstrap_servers, "source": "/tests", "topics": topics, "timeout_s": 20}


@pytest.fixture
async def orgs(options: dict[str, Any]) -> AsyncIterator[SyncOrganizationClient]:
    orgs = SyncOrganizationClient(**options)
    await in_script(orgs.__enter__)
    yield orgs
    await in_script(orgs.__exit__)


def numbered(count: int) -> Iterator[tuple[UUID, Command]]:
    for number in range(count):
        yield uuid5(NAMESPACE, str(number)), UpdateOrganization(org_id=ORG, name=str(number))


async def test_a_script_executes_sends_and_asks(service: AnsweringService, orgs: SyncOrganizationClient) -> None:
    def script() -> list[UUID]:
        executed = orgs.execute(UpdateOrganization(org_id=ORG, name="Acme"))
        sent = orgs.send(RestoreOrganization(org_id=ORG))
        return [executed.command_id, orgs.outcome(sent.command_id).command_id]

    ids = await in_script(script)
    assert [each.command_id for each in service.received] == [str(each) for each in ids]
    assert ids == sorted(ids)


async def test_many_commands_are_sent_at_a_time_and_their_outcomes_come_in_order(
    service: AnsweringService, orgs: SyncOrganizationClient
) -> None:
    ids = await in_script(lambda: [each.command_id for each in orgs.execute_many(numbered(2_000), in_flight_max=300)])
    assert ids == [uuid5(NAMESPACE, str(number)) for number in range(2_000)]
    assert [each.body["name"] for each in service.received] == [str(number) for number in range(2_000)]


async def test_commands_come_from_the_thread_of_the_caller_and_are_bounded(
    service: AnsweringService, orgs: SyncOrganizationClient
) -> None:
    """A cursor of sqlite3 can be used in the thread that made it alone."""
    taken = 0

    def script() -> int:
        nonlocal taken
        database, most = sqlite3.connect(":memory:"), 0
        database.execute("create table names (name text)")
        database.executemany("insert into names values (?)", [(str(number),) for number in range(500)])

        def rows() -> Iterator[Command]:
            nonlocal taken
            for (name,) in database.execute("select name from names"):
                taken += 1
                yield UpdateOrganization(org_id=ORG, name=name)

        for given, _ in enumerate(orgs.execute_many(rows(), in_flight_max=50)):
            most = max(most, taken - given)
        database.close()
        return most

    most = await in_script(script)
    assert taken == 500
    assert 40 <= most <= 50


async def test_an_error_of_the_source_follows_the_outcomes_before_it(
    service: AnsweringService, orgs: SyncOrganizationClient
) -> None:
    outcomes: list[UUID] = []

    def source() -> Iterator[tuple[UUID, Command]]:
        yield from numbered(10)
        raise LookupError("line 11")

    def script() -> None:
        outcomes.extend(each.command_id for each in orgs.execute_many(source()))

    with pytest.raises(LookupError, match="line 11"):
        await in_script(script)
    await in_script(lambda: outcomes.extend(each.command_id for each in orgs.execute_many([])))
    assert len(service.received) == 10


async def test_the_first_command_without_an_outcome_ends_it_and_leaving_early_stops_sending(
    service: AnsweringService, orgs: SyncOrganizationClient
) -> None:
    service.answer = lambda command: None if command.body["name"] == "3" else result(command)
    outcomes: list[UUID] = []

    def script() -> None:
        for each in orgs.execute_many(numbered(10), timeout_s=2):
            outcomes.append(each.command_id)

    with pytest.raises(OutcomeUnknown) as caught:
        await in_script(script)
    assert (len(outcomes), caught.value.command_id) == (3, uuid5(NAMESPACE, "3"))
    service.answer = result
    fresh = ((uuid4(), command) for _, command in numbered(10_000))
    await in_script(lambda: next(orgs.execute_many(fresh, in_flight_max=20)))
    await in_script(orgs.execute, RestoreOrganization(org_id=ORG))
    assert len(service.received) <= 10 + 22


async def test_threads_share_a_client(service: AnsweringService, orgs: SyncOrganizationClient) -> None:
    service.answer = lambda command: result(command, version=int(command.body["name"]))

    def script(number: int) -> int | None:
        return orgs.execute(UpdateOrganization(org_id=uuid4(), name=str(number))).version

    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        found = await asyncio.gather(*(loop.run_in_executor(pool, script, number) for number in range(1, 101)))
    assert found == list(range(1, 101))


async def test_a_client_that_is_not_running_says_so_and_may_be_started_again(
    service: AnsweringService, options: dict[str, Any]
) -> None:
    def script() -> None:
        orgs = SyncOrganizationClient(**options)
        with pytest.raises(NotConnected, match="with SyncOrganizationClient"):
            orgs.execute(RestoreOrganization(org_id=ORG))
        for _ in range(2):
            with orgs:
                assert orgs.execute(RestoreOrganization(org_id=ORG)).code == 200
                with pytest.raises(NotConnected, match="already started"):
                    orgs.__enter__()
        with pytest.raises(NotConnected):
            list(orgs.execute_many(numbered(1)))

    await in_script(script)
    assert [each for each in threading.enumerate() if each.name == "org-events"] == []


async def test_a_kafka_that_is_away_leaves_no_thread_behind() -> None:
    def script() -> None:
        with SyncOrganizationClient(bootstrap_servers="127.0.0.1:1", source="/tests", timeout_s=0.5):
            pass

    with pytest.raises(KafkaUnavailable):
        await in_script(script)
    assert [each for each in threading.enumerate() if each.name == "org-events"] == []


async def test_who_waits_in_another_thread_hears_that_the_client_stopped(
    service: AnsweringService, options: dict[str, Any]
) -> None:
    service.answer = silent
    orgs = SyncOrganizationClient(**options)
    await in_script(orgs.__enter__)
    waiting = asyncio.create_task(in_script(orgs.execute, RestoreOrganization(org_id=ORG)))
    await service.arrived(1)
    await in_script(orgs.__exit__)
    with pytest.raises(OutcomeUnknown, match="the client was stopped"):
        await waiting


_INTERRUPTED = """
import sys
from uuid import UUID
from org_events import RestoreOrganization, Topics, UpdateOrganization
from org_events.publishing import SyncOrganizationClient
servers, prefix, how = sys.argv[1:]
org, command_id = UUID(int=5, version=4), UUID(int=7, version=4)
with SyncOrganizationClient(bootstrap_servers=servers, source="/tests", topics=Topics(prefix), timeout_s=60) as orgs:
    try:
        if how == "execute":
            orgs.execute(RestoreOrganization(org_id=org), command_id=command_id)
        else:
            for _ in orgs.execute_many([RestoreOrganization(org_id=org)]):
                pass
    except KeyboardInterrupt as interrupt:
        print("interrupted", getattr(interrupt, "__notes__", []), flush=True)
    print(orgs.execute(UpdateOrganization(org_id=org, name="after")).code, flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["execute", "execute_many"])
async def test_an_interrupt_ends_the_call_and_the_client_goes_on(
    service: AnsweringService, bootstrap_servers: str, topics: Topics, how: str
) -> None:
    service.answer = lambda command: None if command.type == "org.restore" else result(command)
    program = [sys.executable, "-c", _INTERRUPTED, bootstrap_servers, topics.prefix, how]
    process = await asyncio.create_subprocess_exec(*program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    await service.arrived(1)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(30):
        out, err = (each.decode() for each in await process.communicate())
    assert (process.returncode, err) == (0, "")
    said, code = out.splitlines()
    assert code == "200"
    assert said.startswith("interrupted")
    if how == "execute":
        assert "org.restore 00000000-0000-4000-8000-000000000007 may have been sent" in said
