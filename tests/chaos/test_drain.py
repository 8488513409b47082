"""SIGTERM: batches in flight are finished and acknowledged, so nothing is redelivered; an outage delays no drain."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from org_service.settings import Settings
from tests.chaos.relay.proxy import Proxy, kafka_proxy, postgres_proxy
from tests.support.processes import Role, ServiceProcess
from tests.support.random_commands import RandomCommands
from tests.support.system import System, rows_of
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.integration, pytest.mark.timeout(180)]

COMMANDS = 16_000
ORGANIZATIONS = 500
BATCH_MAX = 500
SEED = 20_300_103
DRAINS = 2
"""Of each role, each with work in flight."""
DRAIN_MAX_S = 10.0
SETTLE_TIMEOUT_S = 60
REDELIVERED = "orgs_records_skipped_total{why=redelivered}"
TROUBLE_TIMEOUT_S = 20

T = TypeVar("T")


def drained_s(process: ServiceProcess) -> float:
    """How long a process took to end after SIGTERM, in good order."""
    began = time.monotonic()
    assert process.terminate() == 0, process.tail()
    return time.monotonic() - began


def test_a_drain_under_load_is_quick_and_nothing_is_redelivered(settings: Settings, tmp_path: Path) -> None:
    sendings = list(RandomCommands(SEED, ORGANIZATIONS).commands(COMMANDS))
    rows, took_s = rows_of(sendings), list[float]()
    with System(in_small_batches(settings), tmp_path) as system:
        for sending in sendings:
            system.publisher.send(sending)
        reached = {"worker": system.head, "relay": system.relay_position}
        processes = {role: system.add(role) for role in ("worker", "relay")}
        started_at = dict.fromkeys(processes, 0)
        for role in DRAINS * ("worker", "relay"):
            process, at = processes[role], started_at[role]
            wait_for(partial(has_progressed, reached[role], at), f"work of the {role}", SETTLE_TIMEOUT_S)
            assert reached["worker"]() < rows, "there was nothing in flight"
            assert process.metrics().get(REDELIVERED, 0) == 0
            took_s.append(drained_s(process))
            started_at[role] = reached[role]()
            process.start()
        system.settle(SETTLE_TIMEOUT_S)
        assert processes["worker"].metrics().get(REDELIVERED, 0) == 0
        took_s += [drained_s(process) for process in processes.values()]
        findings = system.check()
    print(f"seed {SEED}, drained in {', '.join(f'{each:.2f}' for each in took_s)} s\n{findings.text()}")
    assert findings.ok, findings.text()
    assert max(took_s) < DRAIN_MAX_S


def in_small_batches(settings: Settings) -> Settings:
    """So that there is always a next one."""
    worker = settings.worker.model_copy(update={"batch_records_max": BATCH_MAX})
    relay = settings.relay.model_copy(update={"batch_rows_max": BATCH_MAX})
    return settings.model_copy(update={"worker": worker, "relay": relay})


def has_progressed(reached: Callable[[], int], since: int) -> bool:
    return reached() > since


@contextmanager
def through_proxy(settings: Settings, server: str) -> Generator[tuple[Callable[[str], None], Settings]]:
    """Make a server `away` or `silent`, until `over`, for whoever has the settings that are given."""
    with ExitStack() as stack:
        loop = stack.enter_context(loop_beside())

        def run(step: Coroutine[Any, Any, T]) -> T:
            return asyncio.run_coroutine_threadsafe(step, loop).result(TROUBLE_TIMEOUT_S)

        url = settings.database.url.get_secret_value()
        proxied = kafka_proxy(settings.kafka.bootstrap_servers) if server == "kafka" else postgres_proxy(url)
        entered = run(proxied.__aenter__())
        stack.callback(lambda: run(proxied.__aexit__(None, None, None)))
        if isinstance(entered, tuple):
            proxy, url = entered
            through = settings.model_copy(
                update={"database": settings.database.model_copy(update={"url": SecretStr(url)})}
            )
        else:
            proxy = entered
            servers = {"bootstrap_servers": f"127.0.0.1:{proxy.port}"}
            through = settings.model_copy(update={"kafka": settings.kafka.model_copy(update=servers)})
        yield lambda trouble: run(inject(proxy, trouble)), through


async def inject(proxy: Proxy, trouble: str) -> None:
    if trouble == "away":
        await proxy.down()
    elif trouble == "silent":
        proxy.freeze()
    else:
        proxy.thaw()


@contextmanager
def loop_beside() -> Generator[asyncio.AbstractEventLoop]:
    """An event loop in a thread of its own, for proxies, while the test itself waits for processes."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("trouble", ["away", "silent"])
@pytest.mark.parametrize("server", ["kafka", "postgres"])
@pytest.mark.parametrize("role", ["worker", "relay"])
def test_a_drain_in_an_outage_is_quick_and_batches_in_flight_are_redelivered(
    settings: Settings, tmp_path: Path, role: Role, server: str, trouble: str
) -> None:
    with System(settings, tmp_path) as system, through_proxy(settings, server) as (inject_trouble, through):
        process = ServiceProcess(role, through, tmp_path, f"{role}-behind-proxy")
        system.processes.append(process)
        process.start()
        process.wait_until_ready()
        other = system.add("relay" if role == "worker" else "worker")
        other.wait_until_ready()
        inject_trouble(trouble)
        for sending in RandomCommands(SEED, ORGANIZATIONS).commands(500):
            system.publisher.send(sending)
        wait_for(lambda: not process.ready(), "sign of the outage", TROUBLE_TIMEOUT_S)
        took_s = drained_s(process)
        inject_trouble("over")
        system.add(role, "successor")
        system.settle(SETTLE_TIMEOUT_S)
        findings = system.check()
        assert other.terminate() == 0
    print(f"drained in {took_s:.2f} s")
    assert findings.ok, findings.text()
    assert took_s < DRAIN_MAX_S
