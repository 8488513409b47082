"""What the edge does at its bounds, when something is away, and at its end. Each test has an edge of its own."""

import asyncio
import os
import socket
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

import org_local
import org_service
from org_service.edge.edge import Edge
from org_service.settings import DatabaseSettings, Settings
from tests.support import documented, plain_http
from tests.support.database import connected, execute
from tests.support.edge import People, add_member, add_staff, running, with_edge
from tests.support.issuer import Signer, ed_key
from tests.support.key_server import KeyServer
from tests.support.probing import probing
from tests.support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def people(tmp_path: Path) -> People:
    return People(tmp_path)


def client(edge: Edge, people: People, user: str = "root") -> httpx2.AsyncClient:
    async def check(response: httpx2.Response) -> None:
        await response.aread()
        if response.request.url.path.startswith("/v1"):
            documented.check(response)

    return plain_http.async_client(
        base_url=f"http://127.0.0.1:{edge.port}",
        headers=people.headers(user),
        timeout=30,
        event_hooks={"response": [check]},
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


async def readiness(edge: Edge) -> tuple[int, dict[str, bool]]:
    async with plain_http.async_client() as asking:
        answer = await asking.get(f"http://127.0.0.1:{edge.health_port}/readyz")
    return answer.status_code, {name: check["ok"] for name, check in answer.json()["checks"].items()}


async def is_ready(edge: Edge) -> bool:
    return (await readiness(edge))[0] == 200


async def test_a_token_of_a_new_key_is_let_in_and_rejected_only_by_keys_read_since(
    settings: Settings, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    new = ed_key("new")
    async with KeyServer(people.signer) as issuer:
        source = {"jwks_file": "", "jwks_url": issuer.url, "jwks_retry_s": 0.3}
        people.auth = people.auth.model_copy(update=source)

        async with running(with_edge(settings, people), worker=False) as edge, client(edge, people) as known:

            async def ask(key: Signer) -> httpx2.Response:
                return await known.get("/v1/orgs", headers={"authorization": f"Bearer {people.token('root', key)}"})

            assert (await ask(new.called("made up"))).status_code == 401
            issuer.hold(people.signer, new)
            assert (await ask(new)).status_code == 200, "others' made-up keys are not held against it"
            await issuer.stop()
            away = await ask(new.called("newer"))
            assert (away.status_code, away.json()["type"]) == (503, "urn:orgs:problem:unavailable")
            assert "newer keys could not be fetched" in away.json()["detail"]
            assert int(away.headers["retry-after"]) >= 1
            assert (await known.get("/v1/orgs")).status_code == 200
            assert await readiness(edge) == (200, {"edge": True, "postgres": True, "kafka": True, "keys": True})
            assert "cannot be read: no response" in await edge.checks()["keys"]()
    assert issuer.requests == 3


async def answers(edge: Edge) -> bool:
    """Whether a new connection is taken."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    except OSError:
        return False
    writer.close()
    return True


async def test_an_actor_who_asks_too_often_waits_and_nobody_else(settings: Settings, people: People) -> None:
    slow = with_edge(settings, people, rate_per_s=0.1, rate_burst=2)
    async with (
        running(slow, worker=False) as edge,
        client(edge, people, "ann") as ann,
        client(edge, people, "bob") as bob,
    ):
        first, second, third = [await ann.get("/v1/orgs") for _ in range(3)]
        assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
        assert third.json()["type"] == "urn:orgs:problem:too-many-requests"
        assert 8 <= int(third.headers["retry-after"]) <= 10
        assert (await bob.get("/v1/orgs")).status_code == 200


async def test_requests_beyond_the_concurrency_limit_are_turned_away_at_once(
    settings: Settings, people: People
) -> None:
    bounded = with_edge(settings, people, concurrency_max=1)
    async with running(bounded, worker=False) as edge, client(edge, people) as root, asyncio.TaskGroup() as group:
        waiting = group.create_task(root.delete(f"/v1/orgs/{uuid4()}", headers={"prefer": "wait=2"}))
        await until(lambda: REGISTRY.get_sample_value("orgs_http_requests_in_hand"))
        answer = await root.get("/v1/orgs")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:orgs:problem:unavailable"
        assert answer.headers["retry-after"] == "1"
        assert (await readiness(edge))[0] == 200
        assert (await waiting).status_code == 202


async def test_a_change_without_a_worker_is_accepted_and_takes_effect_once_later(
    settings: Settings, people: People
) -> None:
    patient = with_edge(settings, people, outcome_timeout_s=0.5)
    await add_staff(settings, "root")
    headers = {"idempotency-key": "later"}
    async with running(patient, worker=False) as edge, client(edge, people) as root:
        accepted = [await root.post("/v1/orgs", json={"name": "Later"}, headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in accepted] == [202, 202, 202]
        (location,) = {answer.headers["location"] for answer in accepted}
        assert (await root.get(location)).json()["status"] == "pending"
        async with client(edge, people, "other") as other:
            assert (await other.get(location)).status_code == 404
    async with running(patient) as edge, client(edge, people) as root:
        while (told := await root.get(location)).json()["status"] == "pending":
            assert told.headers["retry-after"] == "1"
        assert told.json()["status"] == "applied"
        assert told.json()["organization"]["name"] == "Later"
        first_answer = await root.post("/v1/orgs", json={"name": "Later"}, headers=headers)
        assert (first_answer.status_code, first_answer.headers["etag"]) == (201, '"v1"')
        listed = (await root.get("/v1/orgs?search=later")).json()["organizations"]
        assert [entry["id"] for entry in listed] == [told.json()["org_id"]]


async def test_without_kafka_reads_go_on_and_changes_are_rejected_with_their_command_id(
    settings: Settings, people: People
) -> None:
    away = settings.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{free_port()}"})
    alone = with_edge(settings, people).model_copy(update={"kafka": away})
    async with Edge(alone) as edge, client(edge, people) as root:
        stop = asyncio.Event()
        running_edge = asyncio.create_task(edge.run(stop))
        await until(partial(is_ready, edge))
        assert (await root.get("/v1/orgs")).status_code == 200
        answer = await root.post("/v1/orgs", json={"name": "Acme"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "urn:orgs:problem:unavailable"
        assert answer.json()["command_id"]
        stop.set()
        await running_edge


async def test_an_unconfirmed_change_is_not_promised_and_repeating_it_is_one_change(
    settings: Settings, people: People, stack: org_local.Stack
) -> None:
    await add_staff(settings, "root")
    headers = {"idempotency-key": "unconfirmed"}
    async with running(with_edge(settings, people)) as edge, client(edge, people) as root:
        # So many that all partitions of results are read now: else nothing would be sent at all.
        others = (root.post("/v1/orgs", json={"name": f"Acme {number}"}) for number in range(30))
        org = f"/v1/orgs/{(await asyncio.gather(*others))[0].json()['id']}"
        stack.kafka.pause()
        try:
            for prefer in ("wait=1", "wait=1"):
                answer = await root.patch(org, json={"name": "Best"}, headers={**headers, "prefer": prefer})
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert "It may still take effect." in answer.json()["detail"]
            assert (await root.get("/v1/orgs")).status_code == 200
        finally:
            stack.kafka.resume()
        assert (await root.patch(org, json={"name": "Best"}, headers=headers)).status_code == 200
        history = (await root.get(f"{org}/history")).json()["changes"]
        assert sorted(change["version"] for change in history) == [1, 2]
        [last] = [change for change in history if change["version"] == 2]
        assert last["command_id"] == answer.json()["command_id"]


async def test_without_postgres_nothing_is_decided_and_the_edge_is_alive_but_not_ready(
    settings: Settings, people: People
) -> None:
    url = f"postgresql://postgres@127.0.0.1:{free_port()}/orgs"
    away = DatabaseSettings(url=SecretStr(url), connect_timeout_s=1)
    alone = with_edge(settings, people, outcome_timeout_s=2).model_copy(update={"database": away})
    async with Edge(alone) as edge, client(edge, people) as root:
        stop = asyncio.Event()
        running_edge = asyncio.create_task(edge.run(stop))
        await until(edge.checks()["kafka"], "answers")
        assert await readiness(edge) == (503, {"edge": True, "postgres": False, "kafka": True, "keys": True})
        async with plain_http.async_client() as asking:
            assert (await asking.get(f"http://127.0.0.1:{edge.health_port}/livez")).status_code == 200
        for path in ("/v1/orgs", f"/v1/orgs/{uuid4()}", f"/v1/orgs/{uuid4()}/history", f"/v1/commands/{uuid4()}"):
            answer = await root.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert url not in answer.text
        # Kafka has it, so it will be decided: what it will be is not forgotten while Postgres can't keep it.
        accepted = await root.delete(f"/v1/orgs/{uuid4()}")
        assert accepted.status_code == 202
        stop.set()
        await running_edge


async def test_readiness_takes_no_connection_from_requests_and_needs_none_of_theirs(
    settings: Settings, people: People
) -> None:
    database = settings.database.model_copy(update={"pool_size": 1, "connect_timeout_s": 1})
    small = with_edge(settings, people).model_copy(update={"database": database})
    async with running(small, worker=False) as edge, client(edge, people) as root:
        async with connected(settings) as conn, conn.transaction():
            await conn.execute("LOCK TABLE organization IN ACCESS EXCLUSIVE MODE")
            holding = asyncio.create_task(root.get("/v1/orgs"))  # the only connection that requests have
            await until(lambda: conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
            assert (await root.get("/v1/orgs")).status_code == 503
            assert await readiness(edge) == (200, {"edge": True, "postgres": True, "kafka": True, "keys": True})
        assert (await holding).status_code == 200
        assert (await root.get("/v1/orgs")).status_code == 200


async def test_a_body_that_does_not_arrive_is_given_up(
    settings: Settings, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("org_service.edge.http.limits.BODY_TIMEOUT_S", 0.2)
    async with running(with_edge(settings, people), worker=False) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(
            f"POST /v1/orgs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {people.token('root')}\r\n"
            "content-type: application/json\r\ncontent-length: 100\r\n\r\n{".encode()
        )
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"urn:orgs:problem:request-timeout" in answer


async def test_slow_bodies_do_not_count_as_requests_in_flight(settings: Settings, people: People) -> None:
    bounded = with_edge(settings, people, concurrency_max=1)
    async with running(bounded, worker=False) as edge, client(edge, people) as root:
        slow = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(20)]
        for number, (_, writer) in enumerate(slow):
            token = f"authorization: Bearer {people.token('root')}\r\n" if number % 2 else ""
            head = f"POST /v1/orgs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{token}"
            writer.write(f"{head}content-length: 100\r\n\r\n{{".encode())
        for reader, _ in slow[::2]:
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")
        assert (await root.get("/v1/orgs")).status_code == 200
        for _, writer in slow:
            writer.close()


async def test_before_it_has_started_the_edge_says_so(settings: Settings, people: People) -> None:
    async with Edge(with_edge(settings, people)) as edge, client(edge, people) as root:
        answer = await root.get("/v1/orgs")
        assert (answer.status_code, answer.json()["detail"]) == (503, "The service is starting.")
        assert (await readiness(edge))[1]["edge"] is False


async def test_a_defect_is_a_500_without_details_and_is_logged_with_the_request_id(
    settings: Settings, people: People
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError("a secret of ours")

    with probing("edge.before_look", fail), capture_logs(processors=[merge_contextvars]) as logged:
        async with running(with_edge(settings, people), worker=False) as edge, client(edge, people) as root:
            answer = await root.get(f"/v1/orgs/{uuid4()}", headers={"x-request-id": "find-me"})
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:orgs:problem:internal-error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "find-me"
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert (line["event"], line["request_id"]) == ("a request failed", "find-me")


async def test_a_parked_change_is_a_500_that_names_its_command(settings: Settings, people: People) -> None:
    await add_staff(settings, "root")
    async with running(with_edge(settings, people)) as edge, client(edge, people) as root:
        org_id = (await root.post("/v1/orgs", json={"name": "Acme"})).json()["id"]
        await execute(
            settings,
            "ALTER TABLE organization ADD CONSTRAINT no_poison CHECK (domain <> 'poison.com') NOT VALID",
        )
        for headers in ({"idempotency-key": "poison"}, {"idempotency-key": "poison"}, {}):
            parked = await root.patch(f"/v1/orgs/{org_id}", json={"domain": "poison.com"}, headers=headers)
            assert (parked.status_code, parked.json()["type"]) == (500, "urn:orgs:problem:parked")
            told = await root.get(parked.headers["location"])
            assert (told.json()["status"], told.json()["command_id"]) == ("parked", parked.json()["command_id"])
        mallory = {"authorization": people.headers("mallory")["authorization"]}
        here, nowhere = [
            await root.patch(f"/v1/orgs/{each}", json={"domain": "mallory.com"}, headers=mallory)
            for each in (org_id, uuid4())
        ]
        assert here.status_code == 404
        assert without_id(here) == without_id(nowhere)


def without_id(answer: httpx2.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "command_id"}


async def test_a_role_that_may_not_read_gets_a_403(settings: Settings, people: People, tmp_path: Path) -> None:
    packaged = (Path(org_service.__file__).parent / "policy.toml").read_text()
    strict = tmp_path / "policy.toml"
    strict.write_text(packaged.replace("[roles.user]\ndenied = [", '[roles.user]\ndenied = [ "Organization:read",'))
    told = with_edge(settings, people)
    told = told.model_copy(update={"auth": told.auth.model_copy(update={"policy_file": str(strict)})})
    org_id = uuid4()
    await execute(
        settings,
        "INSERT INTO organization (id, name, name_key, created_at, updated_at, version)"
        " VALUES ($1, 'Acme', 'acme', now(), now(), 1)",
        org_id,
    )
    await add_member(settings, "ugo", org_id, "user")
    async with running(told, worker=False) as edge, client(edge, people, "ugo") as ugo:
        for path in (f"/v1/orgs/{org_id}", f"/v1/orgs/{org_id}/history"):
            answer = await ugo.get(path)
            assert (answer.status_code, answer.json()["type"]) == (403, "urn:orgs:problem:forbidden")


async def test_a_drain_finishes_requests_in_flight_and_accepts_no_new_ones(settings: Settings, people: People) -> None:
    stop = asyncio.Event()
    async with Edge(with_edge(settings, people)) as edge, client(edge, people) as root:
        running_edge = asyncio.create_task(edge.run(stop))
        await until(partial(is_ready, edge))
        await until(edge.checks()["kafka"], "answers")
        in_flight = asyncio.create_task(root.delete(f"/v1/orgs/{uuid4()}", headers={"prefer": "wait=2"}))
        await until(lambda: REGISTRY.get_sample_value("orgs_http_requests_in_hand"))
        stop.set()
        await until(partial(answers, edge), False)
        assert not in_flight.done()
        answer = await in_flight
        assert (answer.status_code, answer.headers["connection"]) == (202, "close")
        await asyncio.wait_for(running_edge, 10)


async def test_browsers_of_other_origins_are_allowed_only_if_configured(settings: Settings, people: People) -> None:
    preflight = {"origin": "https://app.example", "access-control-request-method": "PATCH"}
    async with running(with_edge(settings, people), worker=False) as edge, client(edge, people) as root:
        answer = await root.options("/v1/orgs", headers=preflight)
        assert answer.status_code == 405
        assert "access-control-allow-origin" not in (await root.get("/v1/orgs", headers=preflight)).headers
    open_to = with_edge(settings, people, cors_origins=["https://app.example"])
    async with running(open_to, worker=False) as edge, client(edge, people) as browser:
        answer = await browser.options("/docs", headers=preflight)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
        let_in = await browser.get("/v1/orgs", headers={"origin": "https://app.example"})
        assert let_in.headers["access-control-allow-origin"] == "https://app.example"
        assert "ETag" in let_in.headers["access-control-expose-headers"]
        evil = await browser.get("/v1/orgs", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in evil.headers
