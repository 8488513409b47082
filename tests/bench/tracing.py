"""What tracing costs a command, in processor time: `python -m tests.bench.tracing`.

Measures what worker and relay do for spans beside a batch, on rows as they have them: with tracing off, on with nothing
sampled, and on with 1 % sampled (the sending to a collector included, which listens here and answers at once).
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from uuid import uuid4

from org_service.apply.traced import add_spans as add_decided
from org_service.domain.fold import Plan
from org_service.domain.outcomes import JournaledOutcome, NewOutcome
from org_service.relay.traced import add_spans as add_published
from org_service.relay.traced import pick
from org_service.telemetry.tracing import active, tracing
from tests.support.collector import Collector

COMMANDS = 20_000
BATCH = 1_000
ROUNDS = 9
NOW = datetime.now(UTC)


def make_plan(one_in: int) -> Plan:
    """A batch, one in so many of whose commands is sampled."""
    plan = Plan()
    for number in range(BATCH):
        sampled = one_in and number % one_in == 0
        trace = f"00-{uuid4().hex}-{uuid4().hex[:16]}-{'01' if sampled else '00'}"
        plan.journal.append(
            NewOutcome(
                uuid4(), uuid4(), 2, "org.update", "org.updated", "applied", 200, "ann", b"", 0, number, "[]", "{}",
                "{}", None, trace, NOW, 0,
            )
        )  # fmt: skip
    return plan


def work_as_the_worker_does(plan: Plan) -> None:
    """What `Applier` does for spans."""
    spans = active()
    span = None if spans is None else spans.begin_commands(time.perf_counter())
    if span is not None:
        add_decided(span, plan, 0)
        span.end({"messaging.batch.message_count": BATCH})


def work_as_the_relay_does(rows: list[JournaledOutcome]) -> None:
    """What `Source` and `Relay` do for spans."""
    sampled = pick(rows) if active() is not None else []
    spans = active()
    if spans and sampled:
        add_published(spans, sampled, BATCH, time.perf_counter())


async def measure(one_in: int) -> tuple[float, float]:
    """Microseconds of the processor a command, worker and relay."""
    plan = make_plan(one_in)
    rows = [
        JournaledOutcome(
            position, row.command_id, row.org_id, row.version, row.event_type, row.outcome, row.code, row.actor,
            row.changed, row.before, row.after, row.problem, row.traceparent, row.recorded_at,
        )
        for position, row in enumerate(plan.journal)
    ]  # fmt: skip

    async def spent_us(work: Callable[[], None]) -> float:
        rounds: list[float] = []
        for _ in range(ROUNDS):
            began = time.process_time()
            for _ in range(COMMANDS // BATCH):
                work()
                await asyncio.sleep(0)
            if active() is not None and one_in:
                await asyncio.sleep(1.5)  # until the spans are sent: the collector's part counts too
            rounds.append((time.process_time() - began) / COMMANDS * 1e6)
        return median(rounds)

    return (
        await spent_us(lambda: work_as_the_worker_does(plan)),
        await spent_us(lambda: work_as_the_relay_does(rows)),
    )


async def main() -> None:
    """Print what it costs."""
    print("processor time a command, µs:      worker    relay")
    print("off                              {:8.3f} {:8.3f}".format(*await measure(100)))
    with Collector() as collector:
        async with tracing(collector.settings(sampled_per_s_max=10_000, queue_spans_max=100_000), ["worker"]):
            print("on, nothing sampled              {:8.3f} {:8.3f}".format(*await measure(0)))
            print("on, 1 % sampled, with the sending{:8.3f} {:8.3f}".format(*await measure(100)))


if __name__ == "__main__":
    asyncio.run(main())
