"""Who may ask at /mcp, and how often."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from tests.integration.edge.test_mcp import ACCEPTS, INITIALIZE, message
from tests.support import plain_http
from tests.support.edge import Site, with_edge

pytestmark = pytest.mark.integration

ORIGIN = "https://app.example.com"
BURST = 4


@pytest.fixture(scope="module")
def edge(site: Site) -> Iterator[Site]:
    """An edge beside the one of all tests, that lets each user ask four times, and pages of one origin."""
    bounds: dict[str, Any] = {"rate_per_s": 0.001, "rate_burst": BURST, "cors_origins": (ORIGIN,)}
    with Site(with_edge(site.settings, site.people, **bounds), site.people, worker=False) as started:
        yield started


@pytest.fixture
async def http(edge: Site, request: pytest.FixtureRequest) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a user who has not asked yet."""
    headers = edge.people.headers(request.node.name, {**ACCEPTS, "mcp-protocol-version": "2025-06-18"})
    async with plain_http.async_client(base_url=edge.url, headers=headers, timeout=30) as client:
        yield client


async def test_every_message_counts_once_for_the_rate(http: httpx2.AsyncClient) -> None:
    listing = message("tools/call", name="list_organizations", arguments={})
    for asked in (INITIALIZE, message("ping"), message("tools/list"), listing):
        assert (await http.post("/mcp", json=asked)).status_code == 200, asked
    for asked in (message("ping"), message("tools/list"), "no message"):
        late = await http.post("/mcp", json=asked)
        assert (late.status_code, late.json()["type"]) == (429, "urn:orgs:problem:too-many-requests"), asked
        assert int(late.headers["retry-after"]) > 0
    for arguments in ({}, {"unknown": 1}):
        called = message("tools/call", name="list_organizations", arguments=arguments)
        result = (await http.post("/mcp", json=called)).json()["result"]
        assert (result["isError"], result["_meta"]["problem"]["status"]) == (True, 429)
    assert (await http.get("/v1/orgs")).status_code == 429


CALLED = message("tools/call", name="list_organizations", arguments={})


@pytest.mark.parametrize(
    ("asked", "headers", "status"),
    [
        (CALLED, {"accept": "text/html"}, 406),
        (message("tools/call", nam="list_organizations"), {}, 200),  # an error of the protocol: invalid params
        ({name: value for name, value in CALLED.items() if name != "id"}, {}, 202),
        (CALLED, {"host": "elsewhere.example"}, 421),
        (CALLED, {"content-type": "text/plain"}, 415),
        (message("tools/call", name="x" * 100_000), {}, 413),
    ],
    ids=["not-acceptable", "without-a-name", "a-notification", "another-host", "another-type", "too-large"],
)
async def test_a_call_that_never_reaches_its_tool_counts_too(
    http: httpx2.AsyncClient, asked: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    sent = {"content-type": "application/json", **headers}
    for _ in range(BURST):
        assert (await http.post("/mcp", content=json.dumps(asked), headers=sent)).status_code == status
    assert (await http.post("/mcp", json=message("ping"))).status_code == 429
    result = (await http.post("/mcp", json=CALLED)).json()["result"]
    assert (result["isError"], result["_meta"]["problem"]["status"]) == (True, 429)


async def test_only_tool_calls_over_the_rate_limit_are_answered_by_the_tool(http: httpx2.AsyncClient) -> None:
    for _ in range(BURST):
        await http.post("/mcp", json=message("ping"))
    notified = {name: value for name, value in CALLED.items() if name != "id"}
    for asked in (notified, message("tools/call", nam="list_organizations"), message("tools/call", name=7)):
        assert (await http.post("/mcp", json=asked)).status_code == 429, asked


@pytest.mark.parametrize(
    ("path", "method", "asked"),
    [
        ("/mcp", "POST", "authorization,content-type,mcp-protocol-version,mcp-session-id,last-event-id"),
        ("/mcp", "POST", "authorization,content-type,mcp-method,mcp-name,mcp-protocol-version,traceparent,tracestate"),
        ("/mcp", "GET", "authorization,last-event-id,mcp-session-id"),
        ("/v1/orgs", "HEAD", "authorization,x-request-id,traceparent,if-none-match"),
        ("/v1/orgs", "PATCH", "authorization,content-type,if-match,idempotency-key,prefer,x-request-id"),
    ],
)
async def test_a_page_may_send_what_its_clients_send(
    http: httpx2.AsyncClient, path: str, method: str, asked: str
) -> None:
    preflight = {
        "origin": ORIGIN,
        "access-control-request-method": method,
        "access-control-request-headers": asked,
    }
    async with plain_http.async_client(base_url=http.base_url) as page:
        answer = await page.options(path, headers=preflight)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert method in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower().split(", ")
    assert set(asked.split(",")) <= set(allowed)


async def test_a_page_may_read_what_its_clients_need(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/mcp", json=INITIALIZE, headers={"origin": ORIGIN})
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"Mcp-Session-Id", "X-Request-Id", "X-Command-Id", "ETag", "Location"} <= set(exposed)
