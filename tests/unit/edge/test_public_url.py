"""Behind a proxy: what the service says of its own addresses."""

from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi import FastAPI

from org_service.edge.edge import Edge
from org_service.edge.http import changing
from org_service.edge.http.changing import Changing
from org_service.edge.http.commands import CommandBody, Decided, Pending
from org_service.edge.http.gate import BODY, CALLER, Caller, Receive, Scope, Send
from org_service.edge.http.reading import link_to_next
from org_service.settings import AuthSettings, EdgeSettings, Settings

PUBLIC_URL = "https://example.com/organizations/"
COMMAND = UUID("5b0f2a7c-94d6-5e0a-8c11-7f1e2d3c4b5a")
ORG = UUID("0a000000-0000-4000-8000-000000000001")


class Decides:
    """A stand-in for `Commands`."""

    def __init__(self, outcome: Decided | Pending) -> None:
        self._outcome = outcome

    async def execute(self, _: Caller, __: object) -> Decided | Pending:
        return self._outcome


async def location(outcome: Decided | Pending, public_url: str) -> str:
    app = FastAPI()
    commands: Any = Decides(outcome)
    app.include_router(changing.make_router(Changing(commands, 10, public_url)))

    async def let_in(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, CALLER: Caller("ann", "a.b.c"), BODY: b'{"name": "Acme"}'}, receive, send)

    transport: Any = httpx2.ASGITransport(let_in)
    async with httpx2.AsyncClient(transport=transport, base_url="http://edge") as client:
        answer = await client.post("/v1/orgs", headers={"content-type": "application/json"})
    return answer.headers["location"]


@pytest.mark.parametrize(("public_url", "base"), [(PUBLIC_URL, "https://example.com/organizations"), ("", "")])
async def test_a_location_honours_the_public_url(public_url: str, base: str) -> None:
    created = Decided(COMMAND, ORG, "applied", 200, 1, 7, b"{}", None, CommandBody(b"{}"))
    assert await location(created, public_url) == f"{base}/v1/orgs/{ORG}"
    pending = await location(Pending(COMMAND), public_url)
    assert pending.startswith(f"{base}/v1/commands/")


@pytest.mark.parametrize(("public_url", "base"), [(PUBLIC_URL, "https://example.com/organizations"), ("", "")])
def test_a_link_to_the_next_page_honours_the_public_url(public_url: str, base: str) -> None:
    link = link_to_next(public_url, "/v1/orgs", {"search": None, "limit": 2, "cursor": "a"})
    assert link == {"link": f'<{base}/v1/orgs?limit=2&cursor=a>; rel="next"'}


def test_the_document_names_the_public_url_as_its_server() -> None:
    settings = Settings.model_construct(auth=AuthSettings(), edge=EdgeSettings(public_url=PUBLIC_URL))
    assert Edge(settings).app.openapi()["servers"] == [{"url": "https://example.com/organizations"}]
    unnamed = Settings.model_construct(auth=AuthSettings(), edge=EdgeSettings())
    assert "servers" not in Edge(unnamed).app.openapi()
