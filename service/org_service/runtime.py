"""Puts the parts of a process together, starts them in order and drains them in order.

Start: health endpoints first, so that an orchestrator sees a process that waits; then what the roles stand on (a
migrated database, topics as they must be), waited for; then the roles. Drain, at SIGTERM or SIGINT: each role finishes
what it has in flight (edge: the requests; worker: the batch, its commit and its acknowledgement; relay: the
transaction) and closes; the endpoints go last. An edge drains before a worker and a relay in the same process, because
its requests wait for them. What isn't through after the drain time-out, in an outage that is, is released and comes
again; a second signal does that at once.
"""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal, cast

from org_service.errors import RetryError
from org_service.kafka import topics
from org_service.kafka.client import KafkaError
from org_service.kafka.topics import TopicPlan
from org_service.serving.health import HealthServer
from org_service.settings import Settings
from org_service.store import migrate
from org_service.store.failures import classify
from org_service.telemetry.logs import get_logger
from org_service.telemetry.tracing import tracing
from org_service.waiting import Patience, run_unless

if TYPE_CHECKING:
    from org_service.domain.fold import Decider
    from org_service.edge.edge import Edge
    from org_service.operate.operator import Operator
    from org_service.relay.relay import Relay
    from org_service.worker.worker import Worker

    Part = Worker | Relay | Edge | Operator

ServiceRole = Literal["worker", "relay", "edge", "operate"]

log = get_logger(__name__)

GC_OF_BATCHES: Final = (200_000, 20, 50)
"""A batch holds up to some hundred thousand objects that live until its end and form no cycles: with Python's own
threshold of 700 the collector walks them over and over, for a tenth of the worker's time."""
_GC_OF_REQUESTS: Final = (1_000, 20, 50)
"""A request leaves some ten objects in cycles, and a collection takes 2 µs for each: 200,000 at once would block all
requests for 0.3 s."""
TOPICS_LOOK_S: Final = 60.0
"""Between looks at the topics' settings while running: a few requests, and somebody who changes them by hand still has
the terminal open when the processes end."""
PREREQUISITES_WAIT_S: Final = (0.2, 5.0)
_BEAT_INTERVAL_S: Final = 1.0
CLOSE_S: Final = 0.5
"""For connections to close when a drain is given up: none of them has an answer to come."""


def make_role(role: ServiceRole, settings: Settings, decider: "Decider | None" = None) -> "Part":
    """Make a role, not started. Imported here: the libraries of the others take a second of a start, and 30 MB.

    Args:
        role: Which one.
        settings: All of them.
        decider: Of a worker, as `Worker`.
    """
    if role == "worker":
        from org_service.worker.worker import Worker  # noqa: PLC0415

        return Worker(settings, decider=decider)
    if role == "relay":
        from org_service.relay.relay import Relay  # noqa: PLC0415

        return Relay(settings)
    if role == "operate":
        from org_service.operate.operator import Operator  # noqa: PLC0415

        return Operator(settings)
    from org_service.edge.edge import Edge  # noqa: PLC0415

    if not settings.console.enabled:
        return Edge(settings)
    from org_service.console.console import Console  # noqa: PLC0415

    return Edge(settings, Console(settings))


async def serve(settings: Settings, roles: Collection[ServiceRole]) -> None:
    """Run roles until SIGTERM or SIGINT, then drain.

    Raises:
        StopError: An operator must act first; the message says how. Everything is closed.
        ConfigurationError: A setting, or what it names, can't be used.
        DeniedError: Kafka doesn't let us read a topic's settings.
    """
    stop = asyncio.Event()
    set_on_signals(stop)
    parts: dict[ServiceRole, Part] = {role: make_role(role, settings) for role in sorted(set(roles), reverse=True)}
    spare_collections(with_requests="edge" in parts)
    async with tracing(settings.tracing, roles):
        await serve_parts(parts, stop, settings)


def spare_collections(*, with_requests: bool) -> None:
    """Let the garbage collector pass over what is there by now, and look as seldom as the roles can stand."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*(_GC_OF_REQUESTS if with_requests else GC_OF_BATCHES))


async def serve_parts(parts: "Mapping[ServiceRole, Part]", stop: asyncio.Event, settings: Settings) -> None:
    """Run roles with their health pages until `stop` is set, then drain.

    Raises:
        StopError, ConfigurationError, DeniedError: As `serve`.
    """
    async with AsyncExitStack() as stack:
        for role, part in parts.items():
            if role == "edge":
                edge = await stack.enter_async_context(cast("Edge", part))
                host, port = settings.edge.health_host, edge.health_port
                log.info("the HTTP API", role=role, api=f"http://{settings.edge.host}:{edge.port}")
            else:
                group = {"worker": settings.worker, "relay": settings.relay, "operate": settings.operate}[role]
                host, stalled_after_s = group.host, group.stalled_after_s
                health = HealthServer(part, host=host, port=group.port, stalled_after_s=stalled_after_s)
                port = (await stack.enter_async_context(health)).port
            log.info("health and metrics", role=role, url=f"http://{host}:{port}")
        await run_unless(
            stop, wait_for_prerequisites(parts.values(), partial(find_missing, settings, next(iter(parts))))
        )
        if not stop.is_set():
            await run_parts(parts, stop, settings)
    log.info("ended", roles=sorted(parts))


def set_on_signals(stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT set an event; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, number)


def _on_signal(stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    log.info("stopping on request", signal=number.name)
    stop.set()


async def run_parts(parts: "Mapping[ServiceRole, Part]", stop: asyncio.Event, settings: Settings) -> None:
    """Run all parts; the end of one, whatever the reason, drains the others."""
    stop_behind = asyncio.Event()
    tasks = {
        role: asyncio.create_task(part.run(stop if role == "edge" else stop_behind), name=role)
        for role, part in parts.items()
    }
    watching = asyncio.create_task(
        watch_topics(partial(topics.plan, settings.kafka, settings.relay.name)), name="topics"
    )
    ending = (asyncio.create_task(stop.wait()), watching, *tasks.values())
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    watching.cancel()
    # The edge has a bound of its own: that of its requests.
    await _drain([task for role, task in tasks.items() if role == "edge"], settings.edge.drain_timeout_s + CLOSE_S)
    stop_behind.set()
    await _drain(list(tasks.values()), settings.drain_timeout_s)
    for outcome in await asyncio.gather(watching, *tasks.values(), return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def watch_topics(look: Callable[[], Awaitable[Sequence[TopicPlan]]]) -> None:
    """Look at the topics' settings now and then: what harms may be done to them while everything runs.

    Another number of partitions is only said: readers and the relay wait by themselves until it is as it was.

    Args:
        look: Compares each topic with what it must be.

    Raises:
        StopError: A topic would break the guarantees now.
        DeniedError: Kafka doesn't let us read its settings any more.
    """
    reported: set[str] = set()
    while True:
        await asyncio.sleep(TOPICS_LOOK_S)
        try:
            plans = await look()
        except (KafkaError, OSError) as error:
            log.info("the topics could not be checked", why=type(error).__name__)
            continue
        topics.raise_if_harmful(plans, but=("partitions",))
        differences = {each.advice for plan in plans for each in plan.differences}
        for advice in sorted(differences - reported):
            log.warning("a topic differs from its specification", advice=advice)
        reported = differences


async def _drain(tasks: Collection[asyncio.Task[None]], timeout_s: float) -> None:
    """Wait until parts are through; whatever still hangs then is released, which loses nothing."""
    late = set(tasks)
    while late:
        _, late = await asyncio.wait(late, timeout=timeout_s)
        timeout_s = CLOSE_S
        for task in late:
            log.warning(
                "not drained in time: what was in flight is released and will be redelivered", role=task.get_name()
            )
            task.cancel()


async def wait_for_prerequisites(parts: "Collection[Part]", look: Callable[[], Awaitable[Sequence[str]]]) -> None:
    """Wait until the database is migrated and the topics are there; reject topics that would break the guarantees.

    Args:
        parts: Beat meanwhile.
        look: Says what is missing.

    Raises:
        StopError: A topic has harmful settings, or only a newer release can run on the database.
        DeniedError: Kafka doesn't let us read a topic's settings.
    """
    patience = Patience("waiting for a dependency of this process", PREREQUISITES_WAIT_S, log=log)
    beating = asyncio.create_task(_beat(parts))
    try:
        async for attempt in patience:
            with attempt:
                if missing := await look():
                    raise RetryError("; ".join(missing))
    finally:
        beating.cancel()


async def _beat(parts: "Collection[Part]") -> None:
    """Beat for parts that don't run yet; one look at silent servers may last longer than a part may be still."""
    while True:
        for heartbeat in chain.from_iterable(part.heartbeats for part in parts):
            heartbeat.beat()
        await asyncio.sleep(_BEAT_INTERVAL_S)


async def find_missing(settings: Settings, role: ServiceRole) -> Sequence[str]:
    """What a role waits for before it can run, as texts.

    Raises:
        StopError: A topic has harmful settings, or only a newer release can run on the database.
        DeniedError: Kafka doesn't let us read a topic's settings.
    """
    missing: list[str] = []
    try:
        lacking = migrate.find_lacking(await migrate.find_schema(settings.database, role))
        if lacking is not None:
            missing.append(lacking)
    except Exception as error:
        trouble = classify(error)
        if not isinstance(trouble, RetryError):
            raise
        missing.append(str(trouble))
    try:
        plans = await topics.plan(settings.kafka, settings.relay.name)
    except (KafkaError, OSError) as error:
        missing.append(f"Kafka at {settings.kafka.bootstrap_servers} does not respond ({type(error).__name__})")
        return missing
    topics.raise_if_harmful(plans)
    absent = [plan.spec.name for plan in plans if not plan.exists]
    if absent:
        missing.append(f"topics {', '.join(absent)} are missing: run `orgs topics apply`")
    return missing
