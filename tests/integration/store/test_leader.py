import asyncio
import time

import pytest

from org_service.errors import RetryError
from org_service.settings import DatabaseSettings
from org_service.store.engine import Session, connect
from org_service.store.leader import JournalSignal, LeaderLock
from org_service.store.tables import JOURNAL_CHANNEL
from tests.integration.store.conftest import CreateLogin
from tests.support.waiting import until

pytestmark = pytest.mark.integration

SOON_S = 10.0
AT_ONCE_S = 0.05


async def _notify(session: Session) -> None:
    await session.execute("SELECT pg_notify($1, 'x')", JOURNAL_CHANNEL)


async def _kill(admin: Session, application: str = "orgs-relay") -> None:
    killed = await admin.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = $1",
        application,
    )
    assert killed == 1


async def test_the_first_wait_returns_at_once_because_rows_may_be_there_already(database: DatabaseSettings) -> None:
    async with JournalSignal(database) as signal:
        assert await signal.wait(SOON_S)
        assert not await signal.wait(AT_ONCE_S)


async def test_a_notification_ends_the_wait(database: DatabaseSettings, admin: Session) -> None:
    async with JournalSignal(database) as signal:
        await signal.wait(SOON_S)
        waiting = asyncio.create_task(signal.wait(SOON_S))
        await _notify(admin)
        assert await waiting


async def test_notifications_while_nobody_waits_are_one_signal(database: DatabaseSettings, admin: Session) -> None:
    async with JournalSignal(database) as signal:
        await signal.wait(SOON_S)
        for _ in range(3):
            await _notify(admin)
        await signal._ask("SELECT 1")  # Postgres delivers them before its answer
        assert await signal.wait(SOON_S)
        assert not await signal.wait(AT_ONCE_S)


async def test_a_worker_may_notify_whom_the_relay_listens_to(database: DatabaseSettings) -> None:
    worker = await connect(database, "worker")
    async with JournalSignal(database) as signal:
        await signal.wait(SOON_S)
        await _notify(worker)
        assert await signal.wait(SOON_S)
    await worker.close()


async def test_a_lost_connection_ends_the_wait_with_a_retry_error(database: DatabaseSettings, admin: Session) -> None:
    async with JournalSignal(database) as signal:
        await signal.wait(SOON_S)
        waiting = asyncio.create_task(signal.wait(SOON_S))
        await _kill(admin)
        with pytest.raises(RetryError):
            await waiting
        with pytest.raises(RetryError):
            await signal.wait(SOON_S)


async def test_a_server_without_a_free_connection_is_a_retry_error(
    create_login: CreateLogin, database: DatabaseSettings, admin: Session
) -> None:
    await admin.execute(f"ALTER DATABASE {await admin.fetchval('SELECT current_database()')} CONNECTION LIMIT 0")
    limited = await create_login(database)
    for session in (JournalSignal(limited), LeaderLock(limited, "orgs")):
        with pytest.raises(RetryError, match="53300"):
            await session.__aenter__()


async def test_a_name_has_one_holder(database: DatabaseSettings) -> None:
    async with LeaderLock(database, "orgs") as leader, LeaderLock(database, "orgs") as follower:
        assert await leader.try_acquire()
        assert not await follower.try_acquire()
        async with LeaderLock(database, "others") as other:
            assert await other.try_acquire()
        await leader.check()
        with pytest.raises(RetryError, match="is not held"):
            await follower.check()


async def test_trying_again_as_the_leader_holds_the_lock_once(database: DatabaseSettings) -> None:
    async with LeaderLock(database, "orgs") as leader, LeaderLock(database, "orgs") as follower:
        assert await leader.try_acquire()
        assert await leader.try_acquire()
        assert leader._session is not None
        await leader._session.execute("SELECT pg_advisory_unlock($1)", leader._key)
        assert await follower.try_acquire()


async def test_the_follower_leads_when_the_leader_leaves(database: DatabaseSettings) -> None:
    async with LeaderLock(database, "orgs") as follower:
        async with LeaderLock(database, "orgs") as leader:
            await leader.acquire(0.01)
            assert not await follower.try_acquire()
            following = asyncio.create_task(follower.acquire(0.01))
        async with asyncio.timeout(SOON_S):
            await following
        await follower.check()


async def test_a_leader_whose_session_is_lost_learns_of_it_and_the_follower_leads(
    database: DatabaseSettings, admin: Session
) -> None:
    async with LeaderLock(database, "orgs") as leader:
        await leader.acquire(0.01)
        await _kill(admin)
        async with LeaderLock(database, "orgs") as follower, asyncio.timeout(SOON_S):
            await follower.acquire(0.01)
        with pytest.raises(RetryError):
            await leader.check()
        with pytest.raises(RetryError):
            await leader.try_acquire()


async def test_a_leader_that_falls_silent_loses_the_lock_and_the_follower_leads(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("org_service.store.leader.SILENCE_MAX_S", 0.2)
    async with LeaderLock(database, "orgs") as leader, LeaderLock(database, "orgs") as follower:
        assert await leader.try_acquire()
        async with asyncio.timeout(SOON_S):
            await follower.acquire(0.01)
        with pytest.raises(RetryError, match=r"57P05|closed|no longer usable"):  # the driver may be closing it
            await leader.check()


async def test_a_leader_that_checks_and_a_follower_that_waits_keep_their_state(
    database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("org_service.store.leader.SILENCE_MAX_S", 0.4)
    async with LeaderLock(database, "orgs") as leader, LeaderLock(database, "orgs") as follower:
        assert await leader.try_acquire()
        assert not await follower.try_acquire()
        began = time.monotonic()
        while time.monotonic() < began + 1:
            await leader.check()
            await asyncio.sleep(0.02)
        assert not await follower.try_acquire()
        await leader.check()


async def test_a_lock_lost_within_a_living_session_is_noticed(database: DatabaseSettings) -> None:
    """What a pooler in transaction mode does to a session's lock."""
    async with LeaderLock(database, "orgs") as leader:
        await leader.acquire(0.01)
        assert leader._session is not None
        await leader._session.execute("SELECT pg_advisory_unlock_all()")
        with pytest.raises(RetryError, match="without a pooler"):
            await leader.check()


async def test_a_waiting_follower_holds_back_no_vacuum(database: DatabaseSettings, admin: Session) -> None:
    async with LeaderLock(database, "orgs") as leader, LeaderLock(database, "orgs") as follower:
        await leader.acquire(0.01)
        following = asyncio.create_task(follower.acquire(5))

        async def rests() -> bool:
            return True is await admin.fetchval(
                "SELECT state = 'idle' AND query ~ 'pg_try_advisory_lock' AND backend_xmin IS NULL "
                "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'orgs-relay' "
                "AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)"
            )

        await until(rests)
        following.cancel()
        await asyncio.wait([following])


async def test_a_closed_lock_can_be_entered_again(database: DatabaseSettings) -> None:
    lock = LeaderLock(database, "orgs")
    async with lock:
        await lock.acquire(0.01)
    with pytest.raises(RetryError, match="closed"):
        await lock.check()
    async with lock:
        assert await lock.try_acquire()
