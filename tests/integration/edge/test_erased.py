"""An erased organization over HTTP and MCP: nothing of it, for anybody, and no way back."""

import asyncio
from uuid import UUID, uuid4

import pytest

from org_service.operate import runs
from org_service.operate.erase import Erase
from tests.integration.edge.test_mcp import agent, problem_of
from tests.support.edge import Site
from tests.support.erasing import DOMAIN, NAME, at_once, holds_canary

pytestmark = pytest.mark.integration


@pytest.fixture
def erased(site: Site) -> tuple[str, str, str]:
    """An erased organization, and key and command of the request that created it."""
    org_id, key = str(uuid4()), str(uuid4())
    with site.client("root") as root:
        body = {"id": org_id, "name": NAME, "domain": DOMAIN}
        created = root.post("/v1/orgs", json=body, headers={"idempotency-key": key})
        assert created.status_code == 201
        assert root.delete(f"/v1/orgs/{org_id}").status_code == 204

    async def erase() -> None:
        tool = await Erase.make(at_once(site.settings), org_id)
        planned, _ = await runs.keep_plan(site.settings, tool, requested_by="bob", reason="a test")
        assert (await runs.run(site.settings, planned.id)).counts == {"erased": 1}

    asyncio.run(erase())
    return org_id, key, created.headers["x-command-id"]


def test_it_cannot_be_restored_or_created_again_and_staff_are_told_why(
    site: Site, erased: tuple[str, str, str]
) -> None:
    org_id, key, command_id = erased
    with site.client("root") as root, site.client("ada") as ada:
        restored = root.post(f"/v1/orgs/{org_id}/restore")
        assert (restored.status_code, restored.json()["type"]) == (410, "urn:orgs:problem:erased")
        assert ada.post(f"/v1/orgs/{org_id}/restore").status_code == 404
        assert root.post("/v1/orgs", json={"id": org_id, "name": "Another"}).status_code == 409
        assert root.get(f"/v1/orgs/{org_id}").status_code == 404
        assert root.get(f"/v1/orgs/{org_id}/history").status_code == 404
        # The same request again gets what is left of its outcome, whatever it asks for now.
        again = root.post("/v1/orgs", json={"id": org_id, "name": "x"}, headers={"idempotency-key": key})
        assert (again.status_code, again.json()["type"]) == (410, "urn:orgs:problem:erased")
        outcome = root.get(f"/v1/commands/{command_id}")
        assert outcome.json()["organization"] is None
        assert not any(holds_canary(each.content) for each in (restored, again, outcome))
        assert ada.get(f"/v1/commands/{command_id}").status_code == 404


def test_agents_find_nothing(site: Site, erased: tuple[str, str, str]) -> None:
    async def ask() -> None:
        async with agent(site, "root") as client:
            for tool in ("get_organization", "delete_organization"):
                problem = problem_of(await client.call_tool(tool, {"org_id": erased[0]}))
                assert problem["type"] == "urn:orgs:problem:not-found"

    asyncio.run(ask())
    assert UUID(erased[0])
