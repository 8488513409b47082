"""MCP as an agent uses it: a real client at /mcp of a running service."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from jsonschema import Draft202012Validator
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from org_service.edge.mcp import http as mcp_http
from org_service.edge.mcp import server as mcp
from org_service.settings import EdgeSettings
from tests.support import plain_http
from tests.support.edge import Site, add_member

pytestmark = pytest.mark.integration

ADDRESS = {"line1": "Storgata 1", "line2": None, "city": "Oslo", "region": None, "postal_code": "0155", "country": "NO"}


@asynccontextmanager
async def agent(site: Site, user: str, *, mode: str = "auto") -> AsyncIterator[Client]:
    """A client that acts for a user; it holds each result against the tool's output schema."""
    async with (
        plain_http.async_client(headers=site.people.headers(user), timeout=30) as http,
        Client(streamable_http_client(f"{site.url}/mcp", http_client=http), mode=mode) as client,
    ):
        await client.list_tools()
        yield client


def text_of(result: CallToolResult) -> str:
    """What an agent without structured content reads."""
    (content,) = result.content
    assert content.type == "text"
    return content.text


def problem_of(result: CallToolResult) -> dict[str, Any]:
    """The problem of a rejection, which says the same in words, and is no structured content."""
    assert result.is_error
    assert result.structured_content is None
    assert result.meta is not None
    problem: dict[str, Any] = result.meta["problem"]
    assert text_of(result).endswith(f"type: {problem['type']}")
    return problem


@pytest.fixture
def name() -> str:
    """A name that nobody has yet."""
    return f"Mcp {uuid4().hex}"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_tools_are_listed_with_schemas_and_what_they_do_to_the_world(site: Site, mode: str) -> None:
    async with agent(site, "ann", mode=mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["list_organizations", "get_organization", "update_organization", "delete_organization"]
    hints = {name: tool.annotations for name, tool in tools.items()}
    assert {
        name: hint and (hint.read_only_hint, hint.destructive_hint, hint.idempotent_hint)
        for name, hint in hints.items()
    } == {
        "list_organizations": (True, None, None),
        "get_organization": (True, None, None),
        "update_organization": (False, False, True),
        "delete_organization": (False, True, True),
    }
    for tool in tools.values():
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
    update = tools["update_organization"].input_schema
    assert update["required"] == ["org_id"]
    assert all("default" not in each for each in update["properties"].values())


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_agent_finds_looks_changes_and_deletes(site: Site, name: str, mode: str) -> None:
    org_id = site.create(name, domain="acme.com", primary_address=ADDRESS)
    await add_member(site.settings, "ann", org_id, "admin")
    async with agent(site, "ann", mode=mode) as client:
        listed = await client.call_tool("list_organizations", {"search": name.upper(), "limit": 1})
        (entry,) = listed.structured_content["organizations"]
        assert (entry["id"], entry["role"], entry["access"], entry["denied_actions"]) == (org_id, "admin", "direct", [])
        got = await client.call_tool("get_organization", {"org_id": org_id})
        assert got.structured_content["primary_address"] == ADDRESS
        version = got.structured_content["version"]

        cleared = {"org_id": org_id, "clear": ["domain"], "expected_version": version}
        changed = (await client.call_tool("update_organization", cleared)).structured_content
        assert (changed["status"], changed["role"], changed["access"], changed["denied_actions"]) == (
            "done",
            "admin",
            "direct",
            [],
        )
        assert changed["changed"] == ["domain"]
        organization = changed["organization"]
        assert (organization["name"], organization["domain"], organization["version"]) == (name, None, version + 1)
        assert organization["primary_address"] == ADDRESS

        late = await client.call_tool("delete_organization", {"org_id": org_id, "expected_version": version})
        assert late.is_error
        assert problem_of(late)["type"] == "urn:orgs:problem:precondition-failed"
        assert problem_of(late)["status"] == 409
        deleted = await client.call_tool("delete_organization", {"org_id": org_id, "expected_version": version + 1})
        assert deleted.structured_content["status"] == "done"
        gone = await client.call_tool("get_organization", {"org_id": org_id})
        assert gone.is_error
        assert problem_of(gone)["type"] == "urn:orgs:problem:not-found"


async def test_the_same_key_is_the_same_change_and_another_payload_is_rejected(site: Site, name: str) -> None:
    org_id = site.create(name)
    await add_member(site.settings, "ann", org_id, "admin")
    change = {"org_id": org_id, "domain": "one.no", "idempotency_key": f"k-{name[4:]}"}
    async with agent(site, "ann") as client:
        first = (await client.call_tool("update_organization", change)).structured_content
        await client.call_tool("update_organization", {"org_id": org_id, "domain": "two.no"})
        again = (await client.call_tool("update_organization", change)).structured_content
        other = await client.call_tool("update_organization", {**change, "domain": "three.no"})
    assert again["organization"] == first["organization"]
    assert again["idempotency_key"] == change["idempotency_key"]
    assert problem_of(other)["type"] == "urn:orgs:problem:command-id-reused"


async def test_a_change_whose_outcome_takes_too_long_is_pending_and_found_by_its_key(site: Site, name: str) -> None:
    org_id = site.create(name)
    await add_member(site.settings, "ann", org_id, "admin")
    async with plain_http.async_client(base_url=site.url, headers=site.people.headers("ann")) as api:

        async def at_once(request: httpx2.Request) -> None:
            if "respond" in request.headers.get("idempotency-key", ""):
                request.headers["prefer"] = "respond-async"

        api.event_hooks["request"].append(at_once)
        async with Client(mcp.make_server(api)) as client:
            change = {"org_id": org_id, "domain": "one.no", "idempotency_key": f"respond-{org_id}"}
            pending = (await client.call_tool("update_organization", change)).structured_content
            assert (pending["status"], pending["organization"], pending["role"]) == ("pending", None, "admin")
            assert pending["idempotency_key"] == change["idempotency_key"]
            api.event_hooks["request"].clear()
            done = (await client.call_tool("update_organization", change)).structured_content
            assert (done["status"], done["organization"]["domain"]) == ("done", "one.no")
            api.event_hooks["request"].append(at_once)
            deletion = {"org_id": org_id, "idempotency_key": f"respond-delete-{org_id}"}
            assert (await client.call_tool("delete_organization", deletion)).structured_content["status"] == "pending"


async def test_an_agent_sees_what_its_role_denies_and_is_rejected_if_it_tries(site: Site, name: str) -> None:
    org_id = site.create(name)
    await add_member(site.settings, "uma", org_id, "user")
    async with agent(site, "uma") as client:
        seen = (await client.call_tool("get_organization", {"org_id": org_id})).structured_content
        rejected = await client.call_tool("update_organization", {"org_id": org_id, "name": "Mine"})
    assert "Organization:update" in seen["denied_actions"]
    assert rejected.is_error
    assert problem_of(rejected)["type"] == "urn:orgs:problem:forbidden"
    assert problem_of(rejected)["status"] == 403
    assert "type: urn:orgs:problem:forbidden" in text_of(rejected)


async def test_an_invisible_organization_is_not_found_before_fields_are_checked(site: Site, name: str) -> None:
    org_id = site.create(name)
    async with agent(site, "nobody") as client:
        for unseen in (org_id, str(uuid4())):
            wrong = {"org_id": unseen, "name": 7}
            problem = problem_of(await client.call_tool("update_organization", wrong))
            assert (problem["type"], problem["status"]) == ("urn:orgs:problem:not-found", 404)
        assert (await client.call_tool("list_organizations")).structured_content == {"organizations": [], "next": None}


async def test_wrong_fields_are_named_one_by_one(site: Site, name: str) -> None:
    org_id = site.create(name)
    await add_member(site.settings, "ann", org_id, "admin")
    async with agent(site, "ann") as client:
        rejected = await client.call_tool("update_organization", {"org_id": org_id, "name": " ", "domain": "localhost"})
    errors = {error["path"]: error["code"] for error in problem_of(rejected)["errors"]}
    assert errors == {"name": "blank", "domain": "too_few_labels"}
    assert "- domain: " in text_of(rejected)


@pytest.mark.parametrize(
    ("tool", "arguments", "path", "code"),
    [
        ("get_organization", {}, "org_id", "missing"),
        ("get_organization", {"org_id": "acme"}, "org_id", "not_a_uuid"),
        ("get_organization", {"org_id": f"{uuid4()}/history"}, "org_id", "not_a_uuid"),
        ("delete_organization", {"org_id": 7}, "org_id", "not_a_uuid"),
        ("update_organization", {"org_id": str(uuid4()), "adress": None}, "adress", "unknown"),
        (
            "update_organization",
            {"org_id": str(uuid4()), "idempotency_key": "a b"},
            "idempotency_key",
            "not_a_key",
        ),
        ("delete_organization", {"org_id": None}, "org_id", "missing"),
        ("list_organizations", {"limit": 1000}, "limit", "less_than_equal"),
        ("list_organizations", {"access": "everything"}, "access", "enum"),
    ],
)
async def test_invalid_arguments_give_an_error_result(
    site: Site, tool: str, arguments: dict[str, Any], path: str, code: str
) -> None:
    async with agent(site, "ann") as client:
        rejected = await client.call_tool(tool, arguments)
    assert rejected.is_error
    assert problem_of(rejected)["type"] == "urn:orgs:problem:bad-request"
    assert [(error["path"], error["code"]) for error in problem_of(rejected)["errors"]] == [(path, code)]


async def test_pages_follow_each_other(site: Site, name: str) -> None:
    for number in range(3):
        await add_member(site.settings, "pia", site.create(f"{name} {number}"), "admin")
    found: list[str] = []
    cursor: str | None = None
    async with agent(site, "pia") as client:
        while True:
            page = await client.call_tool("list_organizations", {"limit": 2, "search": name, "cursor": cursor})
            found += [entry["name"] for entry in page.structured_content["organizations"]]
            cursor = page.structured_content["next"]
            if cursor is None:
                break
    assert found == [f"{name} {number}" for number in range(3)]


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
ACCEPTS = {"accept": "application/json, text/event-stream"}


async def test_requests_without_a_token_do_not_reach_the_protocol(site: Site) -> None:
    async with plain_http.async_client(base_url=site.url, headers=ACCEPTS) as http:
        rejected = await http.post("/mcp", json=INITIALIZE)
        expired = await http.post(
            "/mcp", json=INITIALIZE, headers={"authorization": f"Bearer {site.people.token('ann', exp=1_700_000_000)}"}
        )
    for answer in (rejected, expired):
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("host", "evil.example:80", 421),
        ("origin", "https://evil.example", 403),
        ("origin", "http://localhost:5173", 200),
    ],
)
async def test_a_web_page_cannot_make_a_browser_ask(site: Site, header: str, value: str, status: int) -> None:
    headers = site.people.headers("ann", {**ACCEPTS, header: value})
    async with plain_http.async_client(base_url=site.url, headers=headers) as http:
        answer = await http.post("/mcp", json=INITIALIZE)
    assert answer.status_code == status
    named = {421: "ORGS_EDGE__PUBLIC_URL", 403: "ORGS_EDGE__CORS_ORIGINS"}
    if status in named:
        assert named[status] in answer.json()["detail"]
        assert answer.headers["content-type"] == "application/problem+json"


async def test_null_never_clears(site: Site, name: str) -> None:
    org_id = site.create(name, domain="acme.com", primary_address=ADDRESS)
    await add_member(site.settings, "ann", org_id, "admin")
    strict = dict.fromkeys(("name", "domain", "primary_address", "clear", "expected_version", "idempotency_key"))
    async with agent(site, "ann") as client:
        schema = {tool.name: tool for tool in (await client.list_tools()).tools}["update_organization"].input_schema
        assert sorted(schema["properties"]) == sorted([*strict, "org_id"])
        Draft202012Validator(schema).validate({"org_id": org_id, **strict})
        same = (await client.call_tool("update_organization", {"org_id": org_id, **strict})).structured_content
        assert (same["status"], same["changed"], same["organization"]["version"]) == ("done", [], 1)
        change = {"org_id": org_id, **strict, "name": f"{name} 2", "clear": ["domain", "primary_address"]}
        changed = (await client.call_tool("update_organization", change)).structured_content
        listed = await client.call_tool("list_organizations", dict.fromkeys(("search", "access", "order_by", "limit")))
    assert changed["changed"] == ["name", "domain", "primary_address"]
    assert (changed["organization"]["domain"], changed["organization"]["primary_address"]) == (None, None)
    assert not listed.is_error


@pytest.mark.parametrize(
    ("arguments", "path", "code"),
    [
        ({"clear": ["name"]}, "clear.0", "not_clearable"),
        ({"clear": ["domain", 7]}, "clear.1", "not_clearable"),
        ({"clear": '["domain"]'}, "clear", "list_type"),
        ({"clear": ["domain"], "domain": "acme.com"}, "clear.0", "also_given"),
        ({"primary_address": json.dumps(ADDRESS)}, "primary_address", "model_type"),
    ],
)
async def test_arguments_of_another_type_are_wrong_fields(
    site: Site, name: str, arguments: dict[str, Any], path: str, code: str
) -> None:
    org_id = site.create(name)
    async with agent(site, "root") as client:
        problem = problem_of(await client.call_tool("update_organization", {"org_id": org_id, **arguments}))
    assert (problem["type"], problem["status"]) == ("urn:orgs:problem:invalid-fields", 422)
    assert [(error["path"], error["code"]) for error in problem["errors"]] == [(path, code)]
    if isinstance(arguments.get(path), str):
        assert "not a string with its JSON" in problem["errors"][0]["message"]


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 2, "method": method, "params": params}


@pytest.mark.parametrize("arguments", ['{"org_id": "x"}', "text", ["list"], 7])
async def test_arguments_sent_as_text_get_a_422_with_a_reason(site: Site, arguments: Any) -> None:
    headers = site.people.headers("ann", {**ACCEPTS, "mcp-protocol-version": "2025-06-18"})
    called = message("tools/call", name="get_organization", arguments=arguments)
    async with plain_http.async_client(base_url=site.url, headers=headers) as http:
        result = (await http.post("/mcp", json=called)).json()["result"]
    problem = result["_meta"]["problem"]
    assert (result["isError"], problem["status"]) == (True, 422)
    assert "structuredContent" not in result
    (error,) = problem["errors"]
    assert error["message"] == "Must be an object" + (", not a string with its JSON" * isinstance(arguments, str))


async def test_a_byte_order_mark_before_a_message_is_ignored(site: Site) -> None:
    headers = site.people.headers("ann", {**ACCEPTS, "content-type": "application/json; charset=utf8"})
    async with plain_http.async_client(base_url=site.url, headers=headers) as http:
        answer = await http.post("/mcp", content=b"\xef\xbb\xbf" + json.dumps(INITIALIZE).encode())
    assert answer.json()["result"]["serverInfo"]["name"] == "organizations"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
async def test_only_post_is_supported(site: Site, method: str) -> None:
    async with plain_http.async_client(base_url=site.url, headers=site.people.headers("ann", ACCEPTS)) as http:
        answer = await http.request(method, "/mcp")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("edge", "checked", "host", "origin"),
    [
        (EdgeSettings(), True, "localhost:*", "http://127.0.0.1:*"),
        (
            EdgeSettings(host="0.0.0.0", public_url="https://orgs.example.com"),
            True,
            "orgs.example.com",
            "https://orgs.example.com",
        ),
        (
            EdgeSettings(host="0.0.0.0", public_url="https://orgs.example.com/api/"),
            True,
            "orgs.example.com:443",
            "https://orgs.example.com",
        ),
        (EdgeSettings(cors_origins=("https://app.example.com",)), True, "localhost", "https://app.example.com"),
        (EdgeSettings(host="0.0.0.0"), False, None, None),
    ],
)
def test_only_known_hosts_and_origins_are_allowed(edge: EdgeSettings, checked: bool, host: str, origin: str) -> None:
    security = mcp_http.make_transport_security(edge)
    assert security.enable_dns_rebinding_protection is checked
    if checked:
        assert host in security.allowed_hosts
        assert origin in security.allowed_origins
