"""One judge: whichever way a caller comes in, with one token, the same command has the same outcome.

Each case has twins, organizations alike in all but their id and name: one is addressed over Kafka, one over HTTP, one
over MCP. What is journaled about them must be alike, and each caller must be told just that.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from org_events.commands import UncheckedCommand
from org_events.publishing.client import OrganizationClient
from org_events.reference import Role
from org_local.issuer import Issuer
from org_service.edge.edge import Edge
from org_service.relay import Relay
from org_service.settings import AuthSettings, EdgeSettings, Settings
from org_service.worker.worker import Worker
from tests.support import plain_http

pytestmark = pytest.mark.integration

SEED = 20_261_124
CASES = 150
WAYS = ("kafka", "http", "mcp")
NOW = datetime(2026, 5, 1, tzinfo=UTC)
VERSION = 3
OUTCOME_TIMEOUT_S = 60
"""For an outcome; one that isn't there yet is no answer to compare."""
STATES = ("active", "active", "active", "deactivated", "deleted", "missing")
RELATIONS = ("direct", "direct", "left", "partnership", "partner gone", "staff", "staff and direct", "none")
UPDATES: tuple[dict[str, Any], ...] = (
    {"name": "New {id}"},
    {"name": "{name}"},
    {"name": "Taken"},
    {"name": "TAKEN", "domain": None},
    {"domain": "acme.example"},
    {"domain": None},
    {"domain": "not a domain"},
    {"name": " ", "domain": "-"},
    {"primary_address": {"line1": "1 Way", "city": "Oslo", "country": "NO"}},
    {"primary_address": {"line1": "1 Way", "city": "Oslo", "country": "XX"}},
    {"domain": "acme.example", "expected_version": VERSION},
    {"domain": "acme.example", "expected_version": VERSION + 4},
)
DELETES: tuple[dict[str, Any], ...] = ({}, {}, {"expected_version": VERSION}, {"expected_version": VERSION + 4})


@dataclass(frozen=True)
class Case:
    """What is tried, by whom, on what."""

    number: int
    user: str
    role: Role
    relation: str
    state: str
    verb: str
    fields: dict[str, Any]
    partner: UUID
    twins: dict[str, UUID] = field(default_factory=dict[str, UUID])

    def name(self, way: str) -> str:
        return f"Case {self.number} {way}"

    def body(self, way: str) -> dict[str, Any]:
        values = {"{name}": self.name(way), "New {id}": f"New {self.number} {way}"}
        return {
            name: values.get(value, value) if isinstance(value, str) else value for name, value in self.fields.items()
        }


def cases() -> list[Case]:
    numbers = random.Random(SEED)
    made: list[Case] = []
    for number in range(CASES):
        verb = numbers.choice(("update", "update", "delete"))
        made.append(
            Case(
                number,
                f"user-{number}",
                numbers.choice(list(Role)),
                numbers.choice(RELATIONS),
                numbers.choice(STATES),
                verb,
                numbers.choice(UPDATES if verb == "update" else DELETES),
                UUID(int=numbers.getrandbits(128), version=4),
                {way: UUID(int=numbers.getrandbits(128), version=4) for way in WAYS},
            )
        )
    return made


async def prepare(database: asyncpg.Connection, all_cases: list[Case]) -> None:
    organizations: list[tuple[Any, ...]] = [row(UUID(int=7), "Taken", "active")]
    memberships: list[tuple[Any, ...]] = []
    partnerships: list[tuple[Any, ...]] = []
    for case in all_cases:
        organizations.append(
            row(case.partner, f"Partner {case.number}", "deactivated" if "gone" in case.relation else "active")
        )
        for way, org_id in case.twins.items():
            if case.state != "missing":
                organizations.append(row(org_id, case.name(way), case.state))
            if "direct" in case.relation or case.relation == "left":
                memberships.append((case.user, org_id, case.role, NOW, case.relation != "left"))
            if "partner" in case.relation:
                partnerships.append((case.partner, org_id, case.role))
        if "partner" in case.relation:
            memberships.append((case.user, case.partner, "user", NOW, True))
    await database.copy_records_to_table("organization", records=organizations)
    await database.copy_records_to_table("membership", records=memberships)
    await database.copy_records_to_table("partnership", records=partnerships)
    staff = [(case.user,) for case in all_cases if "staff" in case.relation]
    await database.copy_records_to_table("staff", records=staff)


def row(org_id: UUID, name: str, state: str) -> tuple[Any, ...]:
    key = None if state == "deleted" else name.lower()
    deactivated_at = NOW if state == "deactivated" else None
    return (org_id, name, key, "old.example", None, NOW, NOW, deactivated_at, NOW if key is None else None, VERSION)


@dataclass(frozen=True)
class Told:
    """What a caller was told: the code (412 is HTTP's word for a 409), and the problem's type."""

    code: int
    problem: str | None


class Ways:
    """The three ways in, to one running service."""

    def __init__(self, kafka: OrganizationClient, url: str, issuer: Issuer) -> None:
        self._kafka = kafka
        self._url = url
        self._issuer = issuer

    async def tell(self, way: str, case: Case) -> Told:
        """Send the case's command one way."""
        token = self._issuer.token(case.user)
        return await {"kafka": self._by_kafka, "http": self._by_http, "mcp": self._by_mcp}[way](case, token)

    async def _by_kafka(self, case: Case, token: str) -> Told:
        org_id = case.twins["kafka"]
        body = json.dumps({"org_id": str(org_id), **case.body("kafka")}).encode()
        client = self._kafka.on_behalf_of(token=token)
        result = await client.execute(UncheckedCommand(f"org.{case.verb}", org_id, body))
        return Told(result.code, None if result.problem is None else result.problem.type)

    async def _by_http(self, case: Case, token: str) -> Told:
        body = case.body("http")
        headers = {"authorization": f"Bearer {token}"}
        version = body.pop("expected_version", None)
        if version is not None:
            headers["if-match"] = f'"v{version}"'
        async with plain_http.async_client(base_url=self._url, headers=headers, timeout=90) as client:
            path = f"/v1/orgs/{case.twins['http']}"
            answer = await (client.patch(path, json=body) if case.verb == "update" else client.delete(path))
        if answer.status_code in (200, 204):
            return Told(200, None)
        assert answer.is_error, answer.status_code
        return Told({412: 409}.get(answer.status_code, answer.status_code), answer.json()["type"])

    async def _by_mcp(self, case: Case, token: str) -> Told:
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(
                plain_http.async_client(headers={"authorization": f"Bearer {token}"}, timeout=90)
            )
            client = await stack.enter_async_context(
                Client(streamable_http_client(f"{self._url}/mcp", http_client=http))
            )
            body = case.body("mcp")
            cleared = [name for name, value in body.items() if value is None]
            arguments = {"org_id": str(case.twins["mcp"]), **body, **({"clear": cleared} if cleared else {})}
            result = await client.call_tool(f"{case.verb}_organization", arguments)
        if not result.is_error:
            assert result.structured_content is not None
            assert result.structured_content["status"] == "done", result.structured_content
            return Told(200, None)
        content: dict[str, Any] = (result.meta or {})["problem"]
        status: int = content["status"]
        return Told({412: 409}.get(status, status), content["type"])


@pytest.fixture
async def ways(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    issuer = Issuer.open(tmp_path_factory.mktemp("issuer"))
    auth = AuthSettings(issuer=issuer.name, jwks_file=str(issuer.jwks_file))
    settings = settings.model_copy(
        update={"auth": auth, "edge": EdgeSettings(port=0, health_port=0, outcome_timeout_s=OUTCOME_TIMEOUT_S)}
    )
    stop = asyncio.Event()
    async with Edge(settings) as edge:
        tasks = [asyncio.create_task(part.run(stop)) for part in (Worker(settings), Relay(settings), edge)]
        client = OrganizationClient(
            bootstrap_servers=settings.kafka.bootstrap_servers, topics=settings.kafka.topics, source="/tests"
        )
        async with client:
            yield Ways(client, f"http://127.0.0.1:{edge.port}", issuer)
        stop.set()
        await asyncio.gather(*tasks)


@pytest.mark.timeout(180)
async def test_kafka_http_and_mcp_give_the_same_outcome(database: asyncpg.Connection, ways: Ways) -> None:
    all_cases = cases()
    await prepare(database, all_cases)
    some = asyncio.Semaphore(20)

    async def tell(case: Case) -> list[Told]:
        async with some:
            return list(await asyncio.gather(*(ways.tell(way, case) for way in WAYS)))

    told = await asyncio.gather(*map(tell, all_cases))
    journal: dict[UUID, Any] = {line["org_id"]: line for line in await database.fetch("SELECT * FROM journal")}
    codes: set[int] = set()
    for case, by_way in zip(all_cases, told, strict=True):
        rows = [journal[case.twins[way]] for way in WAYS]
        assert len({essence(line) for line in rows}) == 1, (SEED, case, [essence(line) for line in rows])
        problem = None if rows[0]["problem"] is None else orjson.loads(rows[0]["problem"])["type"]
        assert by_way == [Told(rows[0]["code"], problem)] * len(WAYS), (SEED, case)
        codes.add(rows[0]["code"])
    assert codes == {200, 403, 404, 409, 422}


def essence(line: Any) -> tuple[Any, ...]:
    """What may not differ between twins."""
    return tuple(line[name] for name in ("outcome", "code", "version", "event_type", "changed", "actor", "problem"))
