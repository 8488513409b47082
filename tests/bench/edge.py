"""How fast the edge answers: reads at a stated rate on a large platform's data, and one change end to end."""

import asyncio
import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import orjson

from org_local import Issuer, ports
from org_service.edge.http.cursor import write_cursor
from org_service.store import migrate
from tests.bench.edge_data import STAFF, EdgeData
from tests.bench.edge_load import Asked, LoadProcess, by_kind, percentiles, request
from tests.bench.measure import cpu_s
from tests.bench.site import HasPids, Services, Site, processes_of, running, service

Say = Callable[[str], None]

TOKEN_TTL_S: Final = 24 * 3600
_UPDATED: Final = 500
_SHARES: Final[Mapping[str, int]] = {
    "list_user": 35,
    "list_staff": 10,
    "list_staff_deep": 10,
    "list_staff_search": 10,
    "get": 15,
    "get_not_modified": 10,
    "get_invisible": 10,
}
"""Of a hundred requests."""


@dataclass(frozen=True, kw_only=True)
class EdgePlan:
    """How much of everything."""

    runs: int = 3
    organizations: int = 1_000_000
    memberships: int = 2_000_000
    users: int = 2_000
    """Who ask: enough that none of them is rare or remembered, few enough to sign tokens for."""
    warm_up: int = 1_500
    """Requests before the clock starts, besides one of each user."""
    rate: float = 500
    seconds: float = 20
    update_rate: float = 20
    update_s: float = 15


@dataclass
class Tokens:
    """Tokens of a site's own issuer, signed when first needed."""

    issuer: Issuer
    _signed: dict[str, str] = field(default_factory=dict[str, str])

    def __getitem__(self, user: str) -> str:
        if user not in self._signed:
            self._signed[user] = self.issuer.token(user, ttl_s=TOKEN_TTL_S)
        return self._signed[user]


class Reads:
    """Random requests of each kind on some data."""

    def __init__(self, data: EdgeData, tokens: Tokens, users: int, seed: int) -> None:
        self._data = data
        self._tokens = tokens
        self._users = min(users, data.users)
        self._numbers = random.Random(seed)
        self._kinds: dict[str, Callable[[], Asked]] = {name: getattr(self, f"_{name}") for name in _SHARES}

    def some(self, count: int) -> list[Asked]:
        """Requests of all kinds, by their shares."""
        kinds = self._numbers.choices(list(_SHARES), list(_SHARES.values()), k=count)
        return [self._kinds[kind]() for kind in kinds]

    def one_of_each_user(self) -> list[Asked]:
        """A request with every token, so that each is verified before the clock starts; in life it serves for hours."""
        users = [*STAFF, *(f"user{user}" for user in range(self._users))]
        return [self._list("list_user", user, limit="1") for user in users]

    def _user(self) -> int:
        return self._numbers.randrange(self._users)

    def _visible(self, user: int) -> UUID:
        places = [place for place in self._data.places_of(user) if self._data.is_there(place)]
        return self._data.ids[self._numbers.choice(places)] if places else self._visible(user + 1)

    def _list(self, kind: str, user: str, **query: str) -> Asked:
        target = f"/v1/orgs?{urlencode(query)}" if query else "/v1/orgs"
        return Asked(kind, request("GET", target, self._tokens[user]), 200)

    def _list_user(self) -> Asked:
        return self._list("list_user", f"user{self._user()}")

    def _list_staff(self) -> Asked:
        return self._list("list_staff", self._numbers.choice(STAFF))

    def _list_staff_deep(self) -> Asked:
        place = self._numbers.randrange(self._data.organizations)
        org_id, name = self._data.ids[place], self._data.names[place].lower()
        order, key = self._numbers.choice((("name", name), ("-created_at", f"202{place % 4 + 1}-06-01T00:00:00+00:00")))
        cursor = write_cursor(f"{None}\0{None}\0{order}", (key, org_id))
        return self._list("list_staff_deep", self._numbers.choice(STAFF), order_by=order, cursor=cursor)

    def _list_staff_search(self) -> Asked:
        name = self._data.names[self._numbers.randrange(self._data.organizations)]
        prefix = name[: self._numbers.randint(3, 8)].strip()
        return self._list("list_staff_search", self._numbers.choice(STAFF), search=prefix)

    def _get(self) -> Asked:
        user, org_id = self._reader()
        return Asked("get", request("GET", f"/v1/orgs/{org_id}", user), 200)

    def _get_not_modified(self) -> Asked:
        user, org_id = self._reader()
        # Whatever the client has: an entity tag says what the caller is in the organization, too.
        return Asked("get_not_modified", request("GET", f"/v1/orgs/{org_id}", user, if_none_match="*"), 304)

    def _get_invisible(self) -> Asked:
        user = self._user()
        hidden = self._data.hidden_from(user)
        return Asked("get_invisible", request("GET", f"/v1/orgs/{hidden}", self._tokens[f"user{user}"]), 404)

    def _reader(self) -> tuple[str, UUID]:
        user = next(user for user in iter(self._user, None) if self._readable(user))
        return self._tokens[f"user{user}"], self._visible(user)

    def _readable(self, user: int) -> bool:
        return any(self._data.is_there(place) for place in self._data.places_of(user))


@contextmanager
def edge_process(site: Site) -> Generator[tuple[Services, int]]:
    """Run the edge; with the port it listens on."""
    port = ports.pick(None, set())
    with running([service(site, "edge", port)]) as services:
        yield services, port


def edge_read(site: Site, issuer: Issuer, plan: EdgePlan, say: Say) -> dict[str, Any]:
    """Reads of every kind at an even rate, while nothing changes."""
    asyncio.run(migrate.upgrade(site.settings.database))
    data = EdgeData(plan.organizations, plan.memberships)
    began = time.monotonic()
    asyncio.run(data.load(site.database_url))
    loaded_s = time.monotonic() - began
    say(f"  {plan.organizations:,} organizations and {plan.memberships:,} memberships loaded in {loaded_s:.0f} s")
    tokens = Tokens(issuer)
    with edge_process(site) as (services, port), LoadProcess(port) as load:
        warm_up = Reads(data, tokens, plan.users, 0)
        load.ask([*warm_up.one_of_each_user(), *warm_up.some(plan.warm_up)], plan.rate)
        count = max(1, round(plan.rate * plan.seconds))
        runs = [
            _run(site, services, load, Reads(data, tokens, plan.users, number + 1).some(count), plan.rate, say)
            for number in range(plan.runs)
        ]
    sizes = {"organizations": plan.organizations, "memberships": plan.memberships, "loaded_s": round(loaded_s, 1)}
    return _summary(runs) | {"rate_per_s": plan.rate, **sizes}


def http_update(site: Site, issuer: Issuer, services: Services, plan: EdgePlan, say: Say) -> dict[str, Any]:
    """PATCH a few times a second, until its answer is there: published, decided, reported; worker and relay run."""
    data = EdgeData(_UPDATED, _UPDATED * 2)
    asyncio.run(data.load(site.database_url))
    tokens = Tokens(issuer)
    with edge_process(site) as (edge, port), LoadProcess(port) as load:
        load.ask(_updates(data, tokens, round(plan.update_rate * 3), "warm-up"), plan.update_rate)
        count = max(1, round(plan.update_rate * plan.update_s))
        all_services = Both(services, edge)
        runs = [
            _run(site, all_services, load, _updates(data, tokens, count, f"run{number}"), plan.update_rate, say)
            for number in range(plan.runs)
        ]
    return _summary(runs) | {"rate_per_s": plan.update_rate, "organizations": _UPDATED}


class Both:
    """The processes of two."""

    def __init__(self, *parts: Services) -> None:
        self._parts = parts

    def pids(self) -> dict[str, list[int]]:
        """Their processes by name."""
        return {name: pids for part in self._parts for name, pids in part.pids().items()}


def _updates(data: EdgeData, tokens: Tokens, count: int, run: str) -> list[Asked]:
    """Each changes the domain of another organization, by staff: nobody is above their rate."""
    there = [org_id for place, org_id in enumerate(data.ids) if data.is_there(place)]
    return [
        Asked(
            "update",
            request(
                "PATCH",
                f"/v1/orgs/{there[number % len(there)]}",
                tokens[STAFF[number % len(STAFF)]],
                body=orjson.dumps({"domain": f"d{number}.{run}.example.com"}),
            ),
            200,
        )
        for number in range(count)
    ]


def _run(
    site: Site, services: HasPids, load: LoadProcess, requests: Sequence[Asked], rate: float, say: Say
) -> dict[str, Any]:
    before = _cpu_s(site, services, load)
    answered = load.ask(requests, rate)
    after = _cpu_s(site, services, load)
    figures = percentiles(answered.latencies_ms)
    say(f"  {len(requests):,} requests at {rate:,.0f}/s: p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms")
    cpu_us = {name: round((after[name] - before[name]) / len(requests) * 1e6, 1) for name in before}
    return {"requests": len(requests), **figures, "kinds": by_kind(requests, answered), "cpu_us_per_request": cpu_us}


def _cpu_s(site: Site, services: HasPids, load: LoadProcess) -> dict[str, float]:
    pids = processes_of(site, services) | {"load": [load.pid]}
    return {name: sum(map(cpu_s, each)) for name, each in pids.items()}


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians of runs, and the runs."""
    figures = {name: round(median(run[name] for run in runs), 2) for name in ("p50_ms", "p99_ms", "max_ms")}
    kinds = {
        kind: {name: round(median(run["kinds"][kind][name] for run in runs), 2) for name in figures}
        for kind in runs[0]["kinds"]
    }
    cpu_us = {
        name: round(median(run["cpu_us_per_request"][name] for run in runs), 1)
        for name in runs[0]["cpu_us_per_request"]
    }
    return {
        "requests": runs[0]["requests"],
        **figures,
        "kinds": kinds,
        "cpu_us_per_request": cpu_us,
        "runs": list(runs),
    }
