"""Tokens that no key verifies, on a real broker: their partition waits for newer keys, and nobody else does."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from confluent_kafka import Producer

from org_events.cloudevents import command_headers
from org_events.commands import CreateOrganization
from org_events.reference import Staff
from org_service.settings import AuthSettings, Settings
from tests.integration.worker.publishing import committed
from tests.integration.worker.running import running
from tests.support.issuer import ISSUER, Signer, ed_key
from tests.support.key_server import KeyServer
from tests.support.reference_feed import Feed
from tests.support.waiting import until

pytestmark = pytest.mark.integration

OLD, NEW = ed_key("old"), ed_key("new")
RETRY_S = 2.0
COUNT = "SELECT count(*) FROM journal WHERE code = $1"


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with KeyServer(OLD) as server:
        yield server


@pytest.fixture
async def guarded(settings: Settings, server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A worker that wants tokens, of an issuer with one key; somebody is staff."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    auth = AuthSettings(commands="tokens", issuer=ISSUER, jwks_url=server.url, jwks_retry_s=RETRY_S)
    await Feed(settings).raw(settings.kafka.topics.staff, [(b"staff", Staff(user_id="staff").to_body())])
    return settings.model_copy(update={"auth": auth})


def token_of(signer: Signer) -> str:
    now_s = int(time.time())
    return signer.token(sub="staff", iat=now_s - 5, nbf=None, exp=now_s + 600).decode()


async def send(settings: Settings, partition: int, tokens: Iterable[str]) -> list[UUID]:
    """Publish a command for each token."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "acks": "all", "linger.ms": 0})
    ids: list[UUID] = []
    for token in tokens:
        ids.append(uuid4())
        command = CreateOrganization(org_id=uuid4(), name=f"Org {ids[-1]}")
        headers = command_headers(
            command_id=ids[-1], command_type=command.type, source="/tests", authorization=f"Bearer {token}"
        )
        producer.produce(
            settings.kafka.topics.commands,
            command.to_body(),
            str(command.org_id).encode(),
            partition,
            headers=list(headers),
        )
    assert await asyncio.to_thread(producer.flush, 20) == 0
    return ids


def counting(database: asyncpg.Connection, code: int) -> Callable[[], Awaitable[Any]]:
    return lambda: database.fetchval(COUNT, code)


async def test_a_command_of_a_new_key_delays_only_its_partition(
    guarded: Settings, database: asyncpg.Connection, server: KeyServer
) -> None:
    """It was rejected for good, for up to 10 s after any unknown key id."""
    async with running(guarded) as worker:
        await send(guarded, 0, [token_of(NEW.called("made up"))])
        await until(counting(database, 401), 1)
        rejected_at, requests = time.monotonic(), server.requests
        server.hold(OLD, NEW)
        waiting = await send(guarded, 0, [token_of(NEW), token_of(OLD), token_of(NEW)])
        await send(guarded, 1, [token_of(OLD)] * 50)
        await send(guarded, 2, [token_of(OLD)] * 50)
        await until(counting(database, 200), 100)
        if time.monotonic() - rejected_at < RETRY_S - 0.5:  # else the machine is too slow to tell
            assert (await worker.checks()["consumer"]()).endswith("3 partitions; waiting for the issuer's keys: 1")
            assert server.requests == requests
        await until(counting(database, 200), 103)
        assert server.requests == requests + 1
        rows = await database.fetch("SELECT command_id FROM journal WHERE command_partition = 0 ORDER BY position")
        assert [row["command_id"] for row in rows[1:]] == waiting, "in order"
        assert await worker.checks()["consumer"]() == "3 partitions"
        await until(lambda: committed(guarded), 104)
    assert await counting(database, 401)() == 1


async def test_unknown_key_ids_do_not_slow_their_partition_to_one_batch_an_interval(
    guarded: Settings, database: asyncpg.Connection, server: KeyServer
) -> None:
    """One read answers everything published before it, in however many batches that comes."""
    worker = guarded.worker.model_copy(update={"batch_records_max": 50})
    auth = guarded.auth.model_copy(update={"leeway_s": 0.5})
    settings = guarded.model_copy(update={"worker": worker, "auth": auth})
    good, bad = token_of(OLD), [token_of(NEW.called(f"made up {n}")) for n in range(500)]
    await send(settings, 0, [token for each in bad for token in (each, good)])
    async with running(settings):
        await until(counting(database, 401), 500)
        await until(counting(database, 200), 500)
    assert server.requests <= 3  # one at the start, and not one for each of 20 batches


async def test_valid_commands_continue_while_unknown_key_ids_keep_arriving(
    guarded: Settings, database: asyncpg.Connection, server: KeyServer
) -> None:
    auth = guarded.auth.model_copy(update={"jwks_retry_s": 0.5, "leeway_s": 0.5})
    settings = guarded.model_copy(update={"auth": auth})
    sent, longest_s = 0, 0.0
    async with running(settings):
        await send(settings, 1, [token_of(OLD)])
        await until(counting(database, 200), 1)
        began = time.monotonic()
        for n in range(20):
            sent += len(await send(settings, 0, [token_of(NEW.called(f"made up {n} {m}")) for m in range(10)]))
            before = time.monotonic()
            await send(settings, 1 + n % 2, [token_of(OLD)])
            await until(counting(database, 200), n + 2)
            longest_s = max(longest_s, time.monotonic() - before)
        took_s = time.monotonic() - began
        await until(counting(database, 401), sent)
    assert longest_s < 0.5 or took_s > 15, f"{longest_s:.2f} s"  # a machine that is so slow tells nothing
    assert server.requests <= 2 + (took_s + 2) / 0.5


async def test_while_keys_cannot_be_fetched_nothing_is_rejected_and_others_continue(
    guarded: Settings, database: asyncpg.Connection, server: KeyServer
) -> None:
    auth = guarded.auth.model_copy(update={"jwks_retry_s": 0.2})
    async with running(guarded.model_copy(update={"auth": auth})) as worker:
        await send(guarded, 1, [token_of(OLD)])
        await until(counting(database, 200), 1)
        assert (await worker.checks()["keys"]()).startswith("1 key, read ")
        await server.stop()
        await send(guarded, 0, [token_of(NEW), token_of(OLD)])
        await send(guarded, 1, [token_of(OLD)] * 20)
        await until(counting(database, 200), 21)

        async def told() -> bool:
            return "cannot be read: no response" in await worker.checks()["keys"]()

        await until(told, True)
        assert (await worker.checks()["consumer"]()).endswith("; waiting for the issuer's keys: 1")
        server.hold(OLD, NEW)
        await server.start()
        await until(counting(database, 200), 23)
        await until(lambda: committed(guarded), 23)
    assert await counting(database, 401)() == 0


async def test_commands_that_wait_for_keys_are_decided_by_the_next_owner_of_their_partition(
    guarded: Settings, database: asyncpg.Connection, server: KeyServer
) -> None:
    """Also by the one that had it before, and had left it alone."""
    auth = guarded.auth.model_copy(update={"jwks_retry_s": 0.2, "jwks_timeout_s": 0.5})
    async with KeyServer(OLD, NEW) as elsewhere, running(guarded.model_copy(update={"auth": auth})) as first:
        await send(guarded, 1, [token_of(OLD)])
        await until(counting(database, 200), 1)
        server.silent = True
        for partition in range(3):
            await send(guarded, partition, [token_of(OLD), token_of(NEW), token_of(OLD)])
        await until(counting(database, 200), 4)
        assert (await first.checks()["consumer"]()).endswith("; waiting for the issuer's keys: 3")
        knowing = auth.model_copy(update={"jwks_url": elsewhere.url})
        async with running(guarded.model_copy(update={"auth": knowing})):
            await until(lambda: _more_than(counting(database, 200), 4), True)
            server.hold(OLD, NEW)
            server.silent = False
            await until(lambda: committed(guarded), 10)
    assert await counting(database, 200)() == 10


async def _more_than(ask: Callable[[], Awaitable[int]], count: int) -> bool:
    return await ask() > count
