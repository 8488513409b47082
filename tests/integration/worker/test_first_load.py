"""No command is judged before the reference data that were there when the worker started: a rejection is for good."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

import org_local
from org_service.probes import listeners
from org_service.settings import Settings
from org_service.worker import first_load
from org_service.worker.reference import ReferenceSubscriber
from org_service.worker.subscriber import Subscriber
from org_service.worker.worker import Worker
from tests.chaos.relay.proxy import kafka_proxy
from tests.integration.worker.running import has_joined, running
from tests.support import log_faults
from tests.support.probing import once, probing
from tests.support.reference_feed import Feed, at_home, give, member, reading, roles
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def feed(settings: Settings) -> Feed:
    return Feed(settings)


@pytest.fixture
def judging(settings: Settings, tmp_path: Path) -> Settings:
    """Tokens are judged; which keys there are doesn't matter here."""
    keys = tmp_path / "jwks.json"
    key = {"kty": "OKP", "crv": "Ed25519", "kid": "1", "use": "sig", "alg": "EdDSA"}
    keys.write_text(json.dumps({"keys": [key | {"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}))
    auth = settings.auth.model_copy(update={"commands": "tokens", "issuer": "test", "jwks_file": str(keys)})
    return settings.model_copy(update={"auth": auth})


async def test_commands_wait_until_the_reference_data_are_loaded(
    judging: Settings, database: asyncpg.Connection, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    async def looking() -> None:
        looks.append(None)

    async def looked_again() -> bool:
        return len(looks) > 2

    monkeypatch.setitem(listeners, "worker.before_look_at_progress", looking)
    await feed.members(*(member(f"user-{n}") for n in range(10)))
    async with running(judging) as worker:
        async with database.transaction():
            await database.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
            await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), 1)
            with pytest.raises(Exception, match="commands wait until the reference data are loaded"):
                await worker.checks()["consumer"]()
            await until(looked_again, True)
            assert not await has_joined(worker)
        await until(lambda: has_joined(worker), True)
        assert len(await roles(database)) == 10
    async with running(judging) as worker:  # and again, with everything loaded
        await until(lambda: has_joined(worker), True)


async def test_a_worker_that_trusts_its_publishers_does_not_wait(
    settings: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    await feed.members(member("ann"))
    async with running(settings) as worker, database.transaction():
        await database.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
        await until(lambda: has_joined(worker), True)


async def test_the_marker_of_a_transaction_is_not_waited_for(
    judging: Settings, database: asyncpg.Connection, feed: Feed
) -> None:
    """Marks have offsets too, and records that were taken back: no progress gets there."""
    topic, ann, bob = feed.topics.memberships, member(at_home("ann")), member(at_home("bob"))
    producer = AIOKafkaProducer(bootstrap_servers=judging.kafka.bootstrap_servers, transactional_id=f"{topic}.feeder")
    async with producer:
        async with producer.transaction():
            await producer.send(topic, ann.to_body(), key=ann.key(), partition=0)
        await producer.begin_transaction()
        await producer.send(topic, bob.to_body(), key=bob.key(), partition=0)
        await producer.abort_transaction()
    async with running(judging) as worker:
        await until(lambda: has_joined(worker), True)
        assert await roles(database) == {ann.user_id: "user"}


async def test_what_a_topic_lost_after_it_was_applied_is_loaded_again(
    judging: Settings, stack: org_local.Stack, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is where it was: as many others follow as were lost."""
    looked = asyncio.Event()
    for number in range(4):
        await give(feed, number, 1)
    async with reading(judging):
        await first_load.wait_until_loaded(judging, asyncio.Event(), lambda: None)
    await asyncio.to_thread(log_faults.cut_tail, stack, feed.topics.memberships, 0, 2)
    await give(Feed(judging), 100, 2)
    monkeypatch.setitem(listeners, "worker.before_look_for_records", _twice(looked))
    loading = asyncio.create_task(first_load.wait_until_loaded(judging, asyncio.Event(), lambda: None))
    waiting = asyncio.create_task(looked.wait())
    await asyncio.wait({loading, waiting}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert waiting.done()
    assert not loading.done()
    async with reading(judging):
        await asyncio.wait_for(loading, 20)


def _twice(event: asyncio.Event) -> Callable[[], Awaitable[None]]:
    """A listener that sets an event when it is called again."""
    seen: list[None] = []

    async def hear() -> None:
        if seen:
            event.set()
        seen.append(None)

    return hear


async def test_a_loading_worker_stops_when_asked(judging: Settings, database: asyncpg.Connection, feed: Feed) -> None:
    await feed.members(member("ann"))
    impatient = judging.model_copy(update={"drain_timeout_s": 0.5})
    async with asyncio.timeout(20), database.transaction():
        await database.execute("LOCK TABLE membership IN EXCLUSIVE MODE")
        async with running(impatient) as worker:
            await until(lambda: database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), 1)
            assert not await has_joined(worker)


async def test_a_reader_that_failed_ends_the_worker_that_waits_for_it(judging: Settings, feed: Feed) -> None:
    async def fail(_: object) -> None:
        raise RuntimeError

    await feed.members(member("ann"))
    async with asyncio.timeout(30):
        with probing("worker.before_apply", fail), pytest.raises(RuntimeError):
            await Worker(judging).run(asyncio.Event())


async def test_a_hanging_reader_is_not_a_heartbeat(
    judging: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop that waits for it goes on, and mustn't speak for it."""
    looks = count()
    looked = 0

    async def looking() -> None:
        nonlocal looked
        looked = next(looks)

    async def looks_so_far() -> bool:
        return looked >= wanted

    async def hang(subscriber: Subscriber) -> None:
        if isinstance(subscriber, ReferenceSubscriber):
            await asyncio.Event().wait()

    monkeypatch.setitem(listeners, "worker.before_look_at_progress", looking)
    monkeypatch.setitem(listeners, "worker.before_poll", hang)
    await feed.members(member("ann"))
    async with running(judging) as worker:
        wanted = 2
        await until(looks_so_far, True)
        beat = min(each.at_s for each in worker.heartbeats)
        wanted = 5
        await until(looks_so_far, True)
        assert min(each.at_s for each in worker.heartbeats) == beat
        assert not await has_joined(worker)


async def test_an_outage_during_a_check_ends_the_wait(
    settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever started it tries again; a consumer alone gives no records, and no error either."""
    await feed.members(member("ann"))
    async with kafka_proxy(settings.kafka.bootstrap_servers) as proxy:
        servers = {"bootstrap_servers": f"127.0.0.1:{proxy.port}", "request_timeout_ms": 2_000}
        through = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=servers)})
        before_a_look(monkeypatch, proxy.down)
        async with asyncio.timeout(20):
            with pytest.raises(KafkaError):
                await first_load.wait_until_loaded(through, asyncio.Event(), lambda: None)


async def test_a_topic_recreated_during_a_check_is_not_awaited_to_its_former_end(
    settings: Settings, database: asyncpg.Connection, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, created = feed.topics.memberships, asyncio.Event()
    await feed.members(*(member(f"user-{n}") for n in range(30)))

    async def recreate() -> None:
        await feed.delete_topic(topic)
        await feed.create_topic(topic)
        await feed.members(member("ann"))
        created.set()

    before_a_look(monkeypatch, recreate)
    loading = asyncio.create_task(first_load.wait_until_loaded(settings, asyncio.Event(), lambda: None))
    async with asyncio.timeout(40):
        await created.wait()
        async with reading(settings):
            await loading
            assert await roles(database) == {"ann": "user"}


async def test_a_long_check_is_a_heartbeat_and_stops_when_asked(
    settings: Settings, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a partition has no leader."""
    await feed.members(member("ann"))
    beats, stop = count(), asyncio.Event()

    async def nothing(*_: Any, **__: Any) -> dict[Any, Any]:
        return {}

    def beat() -> None:
        if next(beats) == 10:
            stop.set()

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", nothing)
    async with asyncio.timeout(20):
        await first_load.wait_until_loaded(settings, stop, beat)


def before_a_look(monkeypatch: pytest.MonkeyPatch, strike: Callable[[], Awaitable[None]]) -> None:
    """Let something happen just before partitions are looked into for the first time."""
    monkeypatch.setitem(listeners, "worker.before_look_for_records", once(strike))
