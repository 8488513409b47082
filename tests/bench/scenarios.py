"""What is measured, each on a database and topics of its own, with everything warm before the clock starts."""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

import org_local
from org_local.issuer import Issuer
from org_service.settings import AuthSettings
from org_service.store import migrate
from tests.bench import edge, load
from tests.bench.measure import Bench, Run, summary
from tests.bench.site import Services, Site, open_site, pipeline, program, running

Say = Callable[[str], None]

PARTITIONS_AT_ONCE: Final = 12
"""Of the concurrent plain handler: one worker for each partition, more would have nothing to do."""
_IDLE_ORGANIZATIONS: Final = 500
_USERS: Final = 1_000
_STAFF: Final = "staff-1"
_WARM_UP_RUN: Final = 1_000_000
"""A number no measured run has."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything."""

    runs: int = 3
    commands: int = load.COMMANDS
    organizations: int = load.ORGANIZATIONS
    warm_up: int = 8_000
    plain_commands: int = 2_000
    plain_warm_up: int = 300
    idle_rate: float = 20
    idle_s: float = 15
    load_s: float = 5
    load_share: float = 0.5
    """Of the throughput measured before."""
    http: edge.EdgePlan = field(default_factory=edge.EdgePlan)


@dataclass(frozen=True)
class Scene:
    """What a scenario gets to work with."""

    stack: org_local.Stack
    folder: Path
    plan: Plan
    say: Say

    def runs(
        self,
        bench: Bench,
        organizations: int,
        commands: int,
        rate: float | None = None,
        *,
        tokens: Sequence[str] = (),
    ) -> list[Run]:
        """Measure some times, other values each time."""
        org_ids = load.organization_ids(organizations)
        runs: list[Run] = []
        for number in range(self.plan.runs):
            run = bench.run(load.updates(org_ids, commands, number, tokens), rate=rate)
            runs.append(run)
            pace = f"{run.per_s:,.0f} commands/s" if rate is None else f"p50 {run.percentile_ms(0.5):.1f} ms"
            self.say(
                f"  run {number + 1} of {self.plan.runs}: {run.commands:,} commands in {run.seconds:.2f} s, {pace}"
            )
        return runs


def end_to_end(scene: Scene) -> dict[str, Any]:
    """Commands in at full speed until their events are visible; worker and relay as two processes."""
    plan = scene.plan
    with (
        open_site(scene.stack, "end_to_end", scene.folder) as site,
        pipeline(site) as services,
        Bench(site, services, read=site.settings.kafka.topics.events) as bench,
    ):
        warm_up(bench, plan.organizations, plan.warm_up)
        runs = scene.runs(bench, plan.organizations, plan.commands)
    return summary(runs) | {"organizations": plan.organizations}


def end_to_end_tokens(scene: Scene) -> dict[str, Any]:
    """The same with a token in each command, of one of many users, who are judged by their memberships."""
    plan = scene.plan
    issuer = Issuer.open(scene.folder / "issuer")
    auth = _taking(issuer)
    org_ids = load.organization_ids(plan.organizations)
    users = [f"user-{number}" for number in range(_USERS)]
    tokens = [issuer.token(user) for user in users]
    with open_site(scene.stack, "end_to_end_tokens", scene.folder, auth) as site:
        asyncio.run(migrate.upgrade(site.settings.database))
        asyncio.run(_admit(site, users, org_ids))
        with (
            pipeline(site) as services,
            Bench(site, services, read=site.settings.kafka.topics.events) as bench,
        ):
            bench.run(load.creations(org_ids, issuer.token(_STAFF)))
            bench.run(load.updates(org_ids, plan.warm_up, _WARM_UP_RUN, tokens))
            runs = scene.runs(bench, plan.organizations, plan.commands, tokens=tokens)
    return summary(runs) | {"organizations": plan.organizations, "users": _USERS}


async def _admit(site: Site, users: Sequence[str], org_ids: Sequence[UUID]) -> None:
    """Make each user admin of those organizations that `load.updates` has them update."""
    now = datetime.now(UTC)
    connection = await asyncpg.connect(site.database_url)
    await connection.execute("INSERT INTO staff (user_id) VALUES ($1)", _STAFF)
    await connection.copy_records_to_table(
        "membership",
        records=[(users[place % len(users)], org_id, "admin", now, True) for place, org_id in enumerate(org_ids)],
    )
    await connection.close()


def warm_up(bench: Bench, organizations: int, commands: int) -> None:
    """Create the organizations through the service, then update some: code paths, pools and plans are warm then."""
    org_ids = load.organization_ids(organizations)
    bench.run(load.creations(org_ids))
    bench.run(load.updates(org_ids, commands, _WARM_UP_RUN))


def plain(scene: Scene) -> dict[str, Any]:
    """The plain handler, one message after the other."""
    return _plain(scene, ack_policy="ack", max_workers=1)


def plain_concurrent(scene: Scene) -> dict[str, Any]:
    """The plain handler with FastStream's `max_workers`, one for each partition."""
    return _plain(scene, ack_policy="ack", max_workers=PARTITIONS_AT_ONCE)


def plain_ack_first(scene: Scene) -> dict[str, Any]:
    """The plain handler with FastStream's default policy, which loses commands in a crash."""
    return _plain(scene, ack_policy="ack_first", max_workers=1)


def _plain(scene: Scene, *, ack_policy: str, max_workers: int) -> dict[str, Any]:
    plan = scene.plan
    with open_site(scene.stack, "plain", scene.folder) as site:
        argv = [site.bootstrap_servers, site.settings.kafka.topic_prefix, site.database_url]
        argv += [ack_policy, str(max_workers), str(plan.organizations)]
        with (
            _only(site, "plain_handler", argv) as services,
            Bench(site, services, read=site.settings.kafka.topics.events) as bench,
        ):
            org_ids = load.organization_ids(plan.organizations)
            bench.run(load.updates(org_ids, plan.plain_warm_up, _WARM_UP_RUN))
            runs = scene.runs(bench, plan.organizations, plan.plain_commands)
    return summary(runs) | {"ack_policy": ack_policy, "max_workers": max_workers}


def floor(scene: Scene) -> dict[str, Any]:
    """The same records through Python and Kafka alone."""
    plan = scene.plan
    with open_site(scene.stack, "floor", scene.folder) as site:
        argv = [site.bootstrap_servers, site.settings.kafka.topic_prefix]
        topic = site.settings.kafka.topics.events
        with (
            _only(site, "floor_copier", argv) as services,
            Bench(site, services, read=topic, id_header="ce_id") as bench,
        ):
            org_ids = load.organization_ids(plan.organizations)
            bench.run(load.updates(org_ids, plan.warm_up, _WARM_UP_RUN))
            return summary(scene.runs(bench, plan.organizations, plan.commands))


@contextmanager
def _only(site: Site, module: str, argv: list[str]) -> Generator[Services]:
    """Run one module of this package. It has no way to say that it is ready: the warm-up waits for it."""
    with running([program(site, module, ["-m", f"tests.bench.{module}", *argv], is_ready=lambda: True)]) as services:
        yield services


def latency_idle(scene: Scene) -> dict[str, Any]:
    """Few commands, evenly spread: how long until the result of each is read."""
    plan = scene.plan
    with (
        open_site(scene.stack, "latency_idle", scene.folder) as site,
        pipeline(site) as services,
        Bench(site, services, read=site.settings.kafka.topics.results, linger_ms=0) as bench,
    ):
        warm_up(bench, _IDLE_ORGANIZATIONS, plan.warm_up)
        commands = max(1, round(plan.idle_rate * plan.idle_s))
        runs = scene.runs(bench, _IDLE_ORGANIZATIONS, commands, plan.idle_rate)
    return summary(runs) | {"rate_per_s": plan.idle_rate}


def latency_load(scene: Scene, throughput: float) -> dict[str, Any]:
    """The same with a part of the throughput that was measured before."""
    plan = scene.plan
    rate = throughput * plan.load_share
    with (
        open_site(scene.stack, "latency_load", scene.folder) as site,
        pipeline(site) as services,
        Bench(site, services, read=site.settings.kafka.topics.results) as bench,
    ):
        warm_up(bench, plan.organizations, plan.warm_up)
        runs = scene.runs(bench, plan.organizations, max(1, round(rate * plan.load_s)), rate)
    return summary(runs) | {"rate_per_s": round(rate, 1)}


def edge_read(scene: Scene) -> dict[str, Any]:
    """Lists and organizations over HTTP, with a million organizations in the database."""
    issuer = Issuer.open(scene.folder / "issuer")
    with open_site(scene.stack, "edge_read", scene.folder, _taking(issuer)) as site:
        return edge.edge_read(site, issuer, scene.plan.http, scene.say)


def http_update(scene: Scene) -> dict[str, Any]:
    """Few changes over HTTP, evenly spread: how long until each is answered."""
    issuer = Issuer.open(scene.folder / "issuer")
    with (
        open_site(scene.stack, "http_update", scene.folder, _taking(issuer)) as site,
        pipeline(site) as services,
    ):
        return edge.http_update(site, issuer, services, scene.plan.http, scene.say)


def _taking(issuer: Issuer) -> AuthSettings:
    return AuthSettings(issuer=issuer.name, jwks_file=str(issuer.jwks_file))


SCENARIOS: Final[Mapping[str, Callable[[Scene], dict[str, Any]]]] = {
    "end_to_end": end_to_end,
    "end_to_end_tokens": end_to_end_tokens,
    "latency_idle": latency_idle,
    "plain": plain,
    "plain_concurrent": plain_concurrent,
    "plain_ack_first": plain_ack_first,
    "floor": floor,
    "edge_read": edge_read,
    "http_update": http_update,
}
"""All but `latency_load`, which needs the throughput of `end_to_end`."""
LATENCY_LOAD: Final = "latency_load"


def measure(scene: Scene, names: list[str]) -> dict[str, Any]:
    """Measure what is named, in the order of `SCENARIOS`; the ratio is added where both of its parts were measured."""
    results: dict[str, Any] = {}
    for name, scenario in SCENARIOS.items():
        if name in names:
            scene.say(name)
            results[name] = scenario(scene)
        if name == "end_to_end" and name in results and LATENCY_LOAD in names:
            scene.say(LATENCY_LOAD)
            results[LATENCY_LOAD] = latency_load(scene, results[name]["commands_per_s"])
    if "end_to_end" in results:
        if "end_to_end_tokens" in results:
            tokens_per_s = results["end_to_end_tokens"]["commands_per_s"]
            ratio = tokens_per_s / results["end_to_end"]["commands_per_s"]
            results["end_to_end_tokens"]["ratio_to_end_to_end"] = round(ratio, 3)
        per_s = results["end_to_end"]["commands_per_s"]
        for name in ("plain", "plain_concurrent", "plain_ack_first", "floor"):
            if name in results:
                ratio = per_s / results[name]["commands_per_s"]
                results["end_to_end"][f"ratio_to_{name}"] = round(ratio, 3 if name == "floor" else 1)
    return results
