"""What `orgs up` is, on the servers of the tests: its roles and its socket, in a thread with a loop of its own."""

import asyncio
import logging
import secrets
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import asyncpg
from pydantic import SecretStr

import org_local
from org_events.reference import Staff
from org_local import Issuer
from org_service.cli import shell
from org_service.drilling.builds import RELEASES
from org_service.local import STAFF
from org_service.local.host import Host, with_ports
from org_service.local.roles import Roles
from org_service.operate import reference
from org_service.settings import (
    AuthSettings,
    DatabaseSettings,
    EdgeSettings,
    KafkaSettings,
    LogSettings,
    OperateSettings,
    RelaySettings,
    Settings,
    WorkerSettings,
)
from org_service.telemetry.logs import set_up_logging
from tests.support.topics import create_topics, drop_topics

START_S = 60


def as_up_has_them(settings: Settings, folder: Path) -> Settings:
    """The settings with a port for each page and with the issuer of a folder."""
    issuer = Issuer.open(folder)
    auth = AuthSettings(commands="trusted", issuer=issuer.name, jwks_file=str(issuer.jwks_file))
    return with_ports(settings.model_copy(update={"auth": auth, "edge": EdgeSettings(port=0, health_port=0)}))


@contextmanager
def hosting(settings: Settings, stack: org_local.Stack) -> Iterator[None]:
    """Run all roles, and answer on the socket of the current folder."""
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    set_up_logging(LogSettings(level="error", format="json"))  # a command's output is its own

    async def run() -> None:
        stop = asyncio.Event()
        await reference.publish(settings.kafka, [reference.FactEntry(Staff(user_id=STAFF))])
        roles = Roles(settings, RELEASES, lambda _: None)
        async with Host(settings, stack, roles).listening(shell.UP_SOCKET):
            started.set_result((asyncio.get_running_loop(), stop))
            await roles.run(stop)

    ended: Future[None] = Future()

    def body() -> None:
        try:
            asyncio.run(run())
            ended.set_result(None)
        except BaseException as error:
            (ended if started.done() else started).set_exception(error)

    thread = Thread(target=body, name="orgs up")
    thread.start()
    loop, stop = started.result(START_S)
    try:
        yield
    finally:
        if not ended.done():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        ended.result()


@contextmanager
def site(stack: org_local.Stack, server_url: str, template: str, folder: Path) -> Iterator[Settings]:
    """A database and topics of their own, with all roles on them; the current folder is that of `.local`."""
    run = f"u{secrets.token_hex(4)}"
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=stack.bootstrap_servers, topic_prefix=f"{run}.", partitions=3),
        database=DatabaseSettings(url=SecretStr(f"{server_url.rpartition('/')[0]}/{run}")),
        worker=WorkerSettings(port=0),
        relay=RelaySettings(port=0),
        operate=OperateSettings(port=0),
    )
    asyncio.run(_execute(server_url, f"CREATE DATABASE {run} TEMPLATE {template}"))
    asyncio.run(create_topics(settings))
    served = as_up_has_them(settings, folder / ".local")
    with hosting(served, stack):
        yield served
    asyncio.run(drop_topics(settings))
    asyncio.run(_execute(server_url, f"DROP DATABASE {run} WITH (FORCE)"))


async def _execute(server_url: str, statement: str) -> None:
    server = await asyncpg.connect(server_url)
    await server.execute(statement)
    await server.close()
