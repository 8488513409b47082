"""One leads, the others stand by; who leads next fences who led before."""

import asyncio
import logging

import pytest
from aiokafka import AIOKafkaProducer
from structlog.testing import capture_logs

from org_service.relay import Relay, State
from org_service.settings import Settings
from tests.support.database import execute
from tests.support.probing import probing
from tests.support.relaying import (
    Running,
    assert_exactly_once,
    changes,
    journal,
    relay_settings,
    running,
    seen,
)

pytestmark = pytest.mark.integration

TERMINATE_LEADER = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def leader_of(*relays: Running) -> tuple[Running, Running]:
    """The leader, once there is one, and the other."""
    waits = {asyncio.create_task(each.until(lambda relay: relay.state is State.READY)): each for each in relays}
    done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()
    leader = waits[done.pop()]
    [other] = [each for each in relays if each is not leader]
    return leader, other


async def test_one_of_two_leads_and_the_other_takes_over_when_it_is_stopped(settings: Settings) -> None:
    quick = relay_settings(settings, poll_interval_s=0.1)
    async with running(quick) as first, running(quick) as second:
        leader, follower = await leader_of(first, second)
        await leader.published(await journal(settings, changes(20)))
        assert follower.relay.state is State.STANDING_BY
        await leader.drained()
        await follower.published(await journal(settings, changes(20, after=20)))
    assert_exactly_once(await seen(settings), range(1, 41))


async def test_a_follower_never_leads_beside_the_leader(settings: Settings) -> None:
    """Two that lead would publish nothing twice, but fence each other for ever."""
    tries = asyncio.Semaphore(0)

    async def count(_: Relay) -> None:
        tries.release()

    quick = relay_settings(settings, poll_interval_s=0.05)
    async with running(quick) as first, running(quick) as second:
        leader, follower = await leader_of(first, second)
        leading = asyncio.create_task(follower.relay.wait_until(lambda relay: relay.leading))
        with probing("relay.before_try_to_lead", count):
            for turn in range(5):
                await leader.published(await journal(settings, changes(5, after=turn * 5)))
                await asyncio.wait_for(tries.acquire(), 10)
        assert not leading.done()
        assert leader.relay.leading
        leading.cancel()
    assert_exactly_once(await seen(settings), range(1, 26))


async def test_an_unexpected_error_ends_a_term_and_not_the_relay(settings: Settings) -> None:
    due = iter([True])

    async def fail(after: int) -> None:
        if after == 20 and next(due, False):
            raise ZeroDivisionError

    with probing("relay.before_read", fail):
        async with running(settings) as relay:
            await relay.published(await journal(settings, changes(20)))
            await relay.published(await journal(settings, changes(20, after=20)))
    assert next(due, None) is None
    assert_exactly_once(await seen(settings), range(1, 41))


async def test_another_takes_over_when_the_leaders_session_in_postgres_ends(settings: Settings) -> None:
    # Who was leader is slow to come back, so that the other wins.
    patient = relay_settings(settings, poll_interval_s=0.1, retry_wait_s=3)
    async with running(patient) as first, running(patient) as second:
        leader, follower = await leader_of(first, second)
        await leader.published(await journal(settings, changes(20)))
        await execute(settings, TERMINATE_LEADER)
        await leader.until(lambda relay: not relay.leading, timeout_s=5)
        await journal(settings, changes(20, after=20))
        await follower.published(40)
        await follower.drained()
        await leader.published(await journal(settings, changes(20, after=40)))
    assert_exactly_once(await seen(settings), range(1, 61))


async def test_a_fenced_leader_steps_down_without_noise_and_comes_back(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    troubles: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(str(context)))
    caplog.set_level(logging.WARNING)
    async with running(settings) as relay:
        await relay.published(await journal(settings, changes(20)))
        caplog.clear()  # of topics that are new, and whose leaders were still being elected
        with capture_logs() as logs:
            other = AIOKafkaProducer(
                bootstrap_servers=settings.kafka.bootstrap_servers,
                transactional_id=f"{settings.kafka.topic_prefix}{settings.relay.name}",
            )
            await other.start()
            await other.stop()
            await relay.published(await journal(settings, changes(20, after=20)))
    assert_exactly_once(await seen(settings), range(1, 41))
    assert [entry["event"] for entry in logs if entry["log_level"] in ("warning", "error")] == [
        "the relay steps down and stands by again"
    ]
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("aiokafka", "asyncio"))] == []
    assert troubles == []
