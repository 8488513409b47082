"""A role that is denied `Organization:read` gets at the organization by no way in."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

import org_service
from org_events.commands import IfCurrent
from org_events.publishing.client import OrganizationClient
from tests.integration.edge.conftest import Apart
from tests.integration.edge.test_mcp import problem_of, text_of
from tests.support import plain_http
from tests.support.database import execute
from tests.support.edge import People, Site, add_member

pytestmark = pytest.mark.integration

FORBIDDEN = "urn:orgs:problem:forbidden"
SECRET = "secret"


@pytest.fixture(scope="module")
def hiding(site_apart: Apart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A service whose policy denies users nothing but to read organizations."""
    packaged = (Path(org_service.__file__).parent / "policy.toml").read_text()
    folder = tmp_path_factory.mktemp("issuer")
    policy = folder / "policy.toml"
    policy.write_text(re.sub(r"(\[roles\.user\]\ndenied = \[)[^]]*\]", r'\1"Organization:read"]', packaged))
    with site_apart(People(folder), str(policy)) as started:
        yield started


def client(hiding: Site, user: str) -> httpx2.AsyncClient:
    return plain_http.async_client(base_url=hiding.url, headers=hiding.people.headers(user), timeout=30)


async def create(hiding: Site, name: str) -> str:
    async with client(hiding, "root") as root:
        return (await root.post("/v1/orgs", json={"name": name, "domain": f"{SECRET}.com"})).json()["id"]


async def test_no_answer_contains_what_a_role_may_not_read(hiding: Site) -> None:
    org_id = await create(hiding, f"{SECRET} one")
    await add_member(hiding.settings, "ugo", org_id, "user")
    path = f"/v1/orgs/{org_id}"
    body = {"domain": f"{SECRET}.com"}
    async with client(hiding, "ugo") as ugo:
        for answer in (
            await ugo.get(path),
            await ugo.head(path),
            await ugo.get(path, headers={"if-none-match": "*"}),
            await ugo.get(f"{path}/history"),
            await ugo.patch(path, json={}),
            await ugo.patch(path, json={}, headers={"if-match": '"v1"'}),
            await ugo.patch(path, json={}, headers={"if-match": '"v9"'}),
            await ugo.patch(path, json={}, headers={"if-none-match": "*"}),
            await ugo.patch(path, json={"if_current": body}),
            await ugo.patch(path, json={"if_current": {"domain": "guess.com"}}),
            await ugo.patch(path, json={"name": " "}),
            await ugo.post(f"{path}/reactivate"),
            await ugo.post(f"{path}/restore"),
            await ugo.delete(path),
        ):
            assert answer.status_code == 403
            if answer.request.method != "HEAD":
                assert answer.json()["type"] == FORBIDDEN
                assert answer.json()["detail"] == "The role user is denied Organization:read."
            assert SECRET not in answer.text
            assert not {"etag", "location"} & set(answer.headers)
        listed = await ugo.get("/v1/orgs")
        assert listed.json() == {"organizations": [], "next": None}
        assert (await ugo.get("/v1/orgs?search=secret&access=direct")).json()["organizations"] == []
        asked = await ugo.patch(path, json={}, headers={"prefer": "respond-async"})
        while (told := await ugo.get(asked.headers["location"])).json()["status"] == "pending":
            pass
        assert (told.json()["code"], told.json()["organization"], told.json()["version"]) == (403, None, None)


async def test_a_page_is_filled_with_what_may_be_read(hiding: Site) -> None:
    for number in range(6):
        org_id = await create(hiding, f"Page {number}")
        await add_member(hiding.settings, "pia", org_id, "user" if number % 3 else "admin")
    async with client(hiding, "pia") as pia:
        first = (await pia.get("/v1/orgs?limit=1")).json()
        second = (await pia.get("/v1/orgs", params={"limit": 1, "cursor": first["next"]})).json()
        newest = (await pia.get("/v1/orgs?order_by=-created_at&limit=2")).json()
    assert [each["name"] for page in (first, second) for each in page["organizations"]] == ["Page 0", "Page 3"]
    assert (second["next"], newest["next"]) == (None, None)
    assert [each["name"] for each in newest["organizations"]] == ["Page 3", "Page 0"]


async def test_an_outcome_from_before_a_lost_right_shows_nothing(hiding: Site) -> None:
    org_id = await create(hiding, "Old name")
    await add_member(hiding.settings, "ada", org_id, "admin")
    async with client(hiding, "ada") as ada:
        key = {"idempotency-key": "better-days"}
        done = await ada.patch(f"/v1/orgs/{org_id}", json={"name": f"{SECRET} name"}, headers=key)
        command = f"/v1/commands/{done.headers['x-command-id']}"
        assert (await ada.get(command)).json()["organization"]["name"] == f"{SECRET} name"
        await execute(hiding.settings, "UPDATE membership SET role = 'user' WHERE user_id = 'ada'")
        told = await ada.get(command)
        again = await ada.patch(f"/v1/orgs/{org_id}", json={"name": f"{SECRET} name"}, headers=key)
    assert (told.json()["status"], told.json()["organization"]) == ("applied", None)
    assert (again.status_code, again.json()["type"]) == (403, FORBIDDEN)
    assert SECRET not in told.text + again.text


async def test_neither_an_agent_nor_a_publisher_can_read_it(hiding: Site) -> None:
    org_id = await create(hiding, f"{SECRET} two")
    await add_member(hiding.settings, "ugo", org_id, "user")
    async with (
        client(hiding, "ugo") as http,
        Client(streamable_http_client(f"{str(http.base_url).rstrip('/')}/mcp", http_client=http)) as agent,
    ):
        listed = await agent.call_tool("list_organizations")
        assert listed.structured_content == {"organizations": [], "next": None}
        for tool in ("get_organization", "update_organization", "delete_organization"):
            rejected = await agent.call_tool(tool, {"org_id": org_id})
            assert problem_of(rejected)["type"] == FORBIDDEN
            assert SECRET not in text_of(rejected)
    kafka = hiding.settings.kafka
    async with OrganizationClient(
        bootstrap_servers=kafka.bootstrap_servers,
        topics=kafka.topics,
        source="/tests",
        token=hiding.people.token("ugo"),
    ) as publisher:
        guessed = await publisher.update(UUID(org_id), if_current=IfCurrent(domain=f"{SECRET}.com"))
    assert (guessed.code, guessed.organization, guessed.version) == (403, None, None)
