"""Who may ask at /mcp, and how often."""

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
