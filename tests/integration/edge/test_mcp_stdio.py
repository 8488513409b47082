"""`orgs mcp` as a program that an agent starts: on the API of a running service, or of none."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from typer.testing import CliRunner

from org_local import ports
from org_service.cli.app import app
from tests.integration.edge.test_mcp import INITIALIZE, problem_of
from tests.support.edge import Site, add_member

pytestmark = pytest.mark.integration

ORGS = ["-m", "org_service.cli", "mcp"]


@asynccontextmanager
async def agent(folder: Path, api_url: str, token: str) -> AsyncIterator[Client]:
    """A client that started the program in an empty folder; it holds each result against the tool's output schema."""
    env = {"ORGS_API_URL": api_url, "ORGS_TOKEN": token}
    program = StdioServerParameters(command=sys.executable, args=ORGS, env=env, cwd=folder)
    async with Client(program) as client:
        await client.list_tools()
        yield client


async def test_an_agent_changes_an_organization_over_the_network(site: Site, tmp_path: Path) -> None:
    name = f"Stdio {uuid4().hex}"
    org_id = site.create(name)
    await add_member(site.settings, "ann", org_id, "admin")
    async with agent(tmp_path, site.url, site.people.token("ann")) as client:
        listed = await client.call_tool("list_organizations", {"search": name})
        assert [each["id"] for each in listed.structured_content["organizations"]] == [org_id]
        changed = await client.call_tool("update_organization", {"org_id": org_id, "domain": "std.io"})
        assert changed.structured_content["organization"]["domain"] == "std.io"
        assert changed.structured_content["denied_actions"] == []
        deleted = await client.call_tool("delete_organization", {"org_id": org_id})
        assert deleted.structured_content["status"] == "done"


async def test_an_invalid_token_gives_an_error_result(site: Site, tmp_path: Path) -> None:
    async with agent(tmp_path, site.url, site.people.token("ann", aud="others")) as client:
        rejected = await client.call_tool("list_organizations")
    assert rejected.is_error
    assert problem_of(rejected)["type"] == "urn:orgs:problem:unauthenticated"


async def test_an_unreachable_api_gives_an_error_result(tmp_path: Path) -> None:
    nobody = f"http://{ports.LOOPBACK}:{ports.pick(None, set())}"
    async with agent(tmp_path, nobody, "a.b.c") as client:
        rejected = await client.call_tool("update_organization", {"org_id": str(uuid4()), "name": "A"})
    assert rejected.is_error
    assert problem_of(rejected)["type"] == "urn:orgs:problem:unavailable"


@pytest.mark.parametrize("status", ["200 OK", "502 Bad Gateway"])
async def test_the_address_of_another_service_gives_an_error_result(tmp_path: Path, status: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, ports.LOOPBACK) as other:
        port = other.sockets[0].getsockname()[1]
        async with agent(tmp_path, f"http://{ports.LOOPBACK}:{port}", "a.b.c") as client:
            rejected = await client.call_tool("get_organization", {"org_id": str(uuid4())})
    assert rejected.is_error
    assert problem_of(rejected)["type"] == "urn:orgs:problem:internal-error"
    assert status[:3] in problem_of(rejected)["detail"]


async def test_the_output_contains_only_the_protocol_and_ends_with_the_input(site: Site, tmp_path: Path) -> None:
    env = {"ORGS_API_URL": site.url, "ORGS_TOKEN": site.people.token("ann"), "ORGS_LOG__LEVEL": "debug"}
    program = await asyncio.create_subprocess_exec(
        sys.executable, *ORGS, cwd=tmp_path, env=env, stdin=-1, stdout=-1, stderr=-1
    )
    call = {
        "jsonrpc": "2.0",
        "id": 2,
        "method": "tools/call",
        "params": {"name": "list_organizations", "arguments": {}},
    }
    asked = [INITIALIZE, {"jsonrpc": "2.0", "method": "notifications/initialized"}, call]
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write("".join(json.dumps(each) + "\n" for each in asked).encode())
    answers = [json.loads(await program.stdout.readline()) for _ in range(2)]
    program.stdin.close()
    rest, errors = await program.stdout.read(), await program.stderr.read() if program.stderr else b""
    assert await program.wait() == 0
    assert rest == b""
    assert [answer["id"] for answer in answers] == [1, 2]
    assert answers[1]["result"]["structuredContent"]["next"] is None
    assert env["ORGS_TOKEN"].encode() not in errors


async def test_an_expired_token_says_what_to_do(site: Site, tmp_path: Path) -> None:
    async with agent(tmp_path, site.url, site.people.token("ann", exp=1_700_000_000)) as client:
        problem = problem_of(await client.call_tool("list_organizations"))
    assert problem["detail"] == ("The token had expired. Put a fresh token into ORGS_TOKEN and restart `orgs mcp`.")


async def test_a_line_end_after_token_and_address_is_ignored(site: Site, tmp_path: Path) -> None:
    async with agent(tmp_path, f" {site.url}\n", f"{site.people.token('ann')}\r\n") as client:
        assert not (await client.call_tool("list_organizations")).is_error


@pytest.mark.parametrize(
    ("api_url", "token", "said"),
    [
        ("http://127.0.0.1:9", "", ("ORGS_TOKEN is not set",)),
        ("http://127.0.0.1:9", "abc.de\nf.ghi", ("ORGS_TOKEN", "character 7 is a line break")),
        ("http://127.0.0.1:9", "abc def", ("ORGS_TOKEN", "character 4 is white space")),
        ("http://127.0.0.1:9", "abc\u00e9", ("ORGS_TOKEN", "character 4 is not ASCII")),
        ("http://127.0.0.1:99999", "a.b.c", ("ORGS_API_URL", "one of 0 to 65535")),
        ("http://127.0.0.1:80a", "a.b.c", ("ORGS_API_URL", "one of 0 to 65535")),
        ("http://b\u00fccher.example", "a.b.c", ("ORGS_API_URL", "must be ASCII")),
        ("http://127.0.0.1:9\n00", "a.b.c", ("ORGS_API_URL", "without white space")),
        ("http://[::1", "a.b.c", ("ORGS_API_URL", "must have a host")),
        ("http://-.[x]:80", "a.b.c", ("ORGS_API_URL",)),
        ("ftp://127.0.0.1", "a.b.c", ("ORGS_API_URL", "http or https")),
    ],
)
def test_a_token_or_an_address_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api_url: str, token: str, said: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, ["mcp"], env={"ORGS_API_URL": api_url, "ORGS_TOKEN": token})
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert all(each in ended.stderr.replace("\n", " ") for each in said), ended.stderr
    assert not token or token not in ended.stderr
