"""The whole stack in one terminal, and the demo, as a person runs them."""

import asyncio
import json
import os
import re
import signal
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from org_local import ports
from org_service.kafka.reader import ends, reader
from org_service.settings import Settings
from tests.support.issuer import ISSUER, ed_key
from tests.support.key_server import KeyServer

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[3]


STACK_ENV = {
    *("ORGS_KAFKA__BOOTSTRAP_SERVERS", "ORGS_DATABASE__URL", "ORGS_API_URL", "ORGS_TOKEN"),
    *("ORGS_AUTH__COMMANDS", "ORGS_AUTH__ISSUER", "ORGS_AUTH__JWKS_FILE"),
    *("ORGS_CONSOLE__ENABLED", "ORGS_CONSOLE__LINKS"),
}


def environment() -> dict[str, str]:
    """Nothing that leads to other servers than their own."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ORGS_")}
    return variables | {
        "ORGS_WORKER__PORT": "0",
        "ORGS_RELAY__PORT": "0",
        "ORGS_OPERATE__PORT": "0",
        "ORGS_EDGE__PORT": "0",
        "ORGS_EDGE__HEALTH_PORT": "0",
    }


async def start(folder: Path, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder,
        env=environment() | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def orgs(folder: Path, *arguments: str) -> tuple[int | None, str]:
    process = await start(folder, "-m", "org_service.cli", *arguments)
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode() + stderr.decode()


async def line_with(stream: asyncio.StreamReader | None, words: str, seen: list[str] | None = None) -> str:
    """The first line with these words; what came with it and before is added to `seen`."""
    assert stream is not None
    seen = [] if seen is None else seen
    while line := (await stream.readline()).decode():
        seen.append(line)
        if words in line:
            return line
    raise AssertionError(f"{words!r} never came: {seen}")


def _seen_over_http(stack_env: dict[str, str]) -> list[str]:
    headers = {"authorization": f"Bearer {stack_env['ORGS_TOKEN']}"}
    request = urllib.request.Request(f"{stack_env['ORGS_API_URL']}/v1/orgs", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        (organization,) = json.load(answer)["organizations"]
    return [organization[name] for name in ("name", "access", "role")]


def _page_behind(link: str) -> str:
    """The page that a browser has once it followed a link, with the cookies that it got."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(link, timeout=20) as answer:
        return f"{answer.url} {answer.read().decode()}"


def readyz(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20) as answer:
        return answer.status


@pytest.mark.timeout(180)
async def test_up_starts_everything_other_terminals_find_it_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    up = await start(tmp_path, "-m", "org_service.cli", "up")
    try:
        await line_with(up.stderr, "ready: try")
        stack_env = dict(line.split("=", 1) for line in (tmp_path / ".local/stack.env").read_text().splitlines())
        assert stack_env.keys() == STACK_ENV
        assert (tmp_path / ".local/stack.env").stat().st_mode & 0o777 == 0o600
        code, said = await orgs(tmp_path, "send", "create", "--name", "Acme", "--timeout", "60")
        assert (code, said.splitlines()[0]) == (0, "applied 200  v1  Acme")
        assert "version  1" in (await orgs(tmp_path, "show", "acme"))[1]
        assert await asyncio.to_thread(_seen_over_http, stack_env) == ["Acme", "staff", "admin"]
        assert (tmp_path / ".local/up.sock").stat().st_mode & 0o777 == 0o600
        assert (await orgs(tmp_path, "roles"))[1].count(" running ") == 4
        link = (await orgs(tmp_path, "console"))[1].strip()
        page = await asyncio.to_thread(_page_behind, link)
        assert page.startswith(f"{stack_env['ORGS_API_URL']}/console ")
        assert "<bdi>local-staff</bdi>" in page
        children = psutil.Process(up.pid).children(recursive=True)
        assert len(children) >= 4  # Kafka, Postgres and their supervisors
        tail = await start(tmp_path, "-m", "org_service.cli", "tail", "events", "--from-start")
        await line_with(tail.stdout, "created     Acme")
        up.send_signal(signal.SIGINT)
        _, said_last = await up.communicate()
    finally:
        if up.returncode is None:
            up.kill()
    assert up.returncode == 0
    assert said_last.decode().splitlines()[-1] == "stopping Kafka and Postgres"
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    assert not (tmp_path / ".local/stack.env").exists()
    assert not (tmp_path / ".local/up.sock").exists()
    tail.send_signal(signal.SIGINT)  # it still waits for Kafka to come back
    assert await tail.communicate() == (b"", b"")
    assert tail.returncode == 0
    code, said = await orgs(tmp_path, "show", "acme")
    assert code == 3
    assert "orgs up" in said


async def test_up_uses_servers_of_the_environment_and_shows_no_password(settings: Settings, tmp_path: Path) -> None:
    parts = urlsplit(settings.database.url.get_secret_value())
    url = parts._replace(netloc=f"postgres:sesame@{parts.netloc.rpartition('@')[2]}").geturl()
    servers = {
        "ORGS_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "ORGS_KAFKA__TOPIC_PREFIX": settings.kafka.topic_prefix,
        "ORGS_KAFKA__PARTITIONS": str(settings.kafka.partitions),
        "ORGS_DATABASE__URL": url,
    }
    rejected = await start(tmp_path, "-m", "org_service.cli", "up", **servers)
    _, said = await rejected.communicate()
    assert (rejected.returncode, "orgs up --trusted" in said.decode()) == (2, True)
    up = await start(tmp_path, "-m", "org_service.cli", "up", "--trusted", **servers)
    try:
        assert "postgres:***@" in await line_with(up.stderr, "Postgres  ")
        await line_with(up.stderr, "ready: try")
        assert "ORGS_TOKEN" not in (tmp_path / ".local/stack.env").read_text()
        assert not (tmp_path / ".local/up.sock").exists()  # nobody stops roles, or plants anything, there
        async with reader(settings.kafka, settings.kafka.topics.staff) as (consumer, partitions):
            assert set((await ends(consumer, partitions)).values()) == {0}  # nobody was made staff there
    finally:
        up.terminate()
        rest = await up.communicate()
    assert b"sesame" not in b"".join(rest)


async def test_up_reports_ready_only_when_each_role_is(settings: Settings, tmp_path: Path) -> None:
    """The keys of tokens can't be fetched at first, so worker and edge wait for them, and ready would be a lie."""
    taken: set[int] = set()
    names = ("ORGS_WORKER__PORT", "ORGS_RELAY__PORT", "ORGS_OPERATE__PORT", "ORGS_EDGE__HEALTH_PORT")
    pages = {name: ports.pick(None, taken) for name in names}
    async with KeyServer(ed_key()) as issuer:
        issuer.status = "503 Service Unavailable"
        up = await start(
            *(tmp_path, "-m", "org_service.cli", "up"),
            ORGS_KAFKA__BOOTSTRAP_SERVERS=settings.kafka.bootstrap_servers,
            ORGS_KAFKA__TOPIC_PREFIX=settings.kafka.topic_prefix,
            ORGS_KAFKA__PARTITIONS=str(settings.kafka.partitions),
            ORGS_DATABASE__URL=settings.database.url.get_secret_value(),
            ORGS_AUTH__ISSUER=ISSUER,
            ORGS_AUTH__JWKS_URL=issuer.url,
            **{name: str(port) for name, port in pages.items()},
        )
        try:
            seen: list[str] = []
            await line_with(up.stderr, "not ready to serve requests", seen)
            assert not [line for line in seen if line.startswith("ready")]
            issuer.status = "200 OK"
            await line_with(up.stderr, "ready: try")
            assert await asyncio.to_thread(lambda: [readyz(port) for port in pages.values()]) == [200] * 4
        finally:
            up.terminate()
            await up.communicate()


async def test_up_with_a_wrong_setting_starts_nothing(tmp_path: Path) -> None:
    up = await start(tmp_path, "-m", "org_service.cli", "up", ORGS_LOG__LEVEL="loud")
    _, said = await up.communicate()
    assert up.returncode == 2
    assert said.decode().splitlines()[0] == "error: invalid setting:"
    assert not (tmp_path / ".local").exists()


@pytest.mark.timeout(180)
async def test_the_demo_ends_with_accounts_that_balance(tmp_path: Path) -> None:
    demo = await start(tmp_path, str(REPOSITORY / "docs/examples/demo/demo.py"))
    stdout, stderr = await demo.communicate()
    told = stdout.decode()
    assert demo.returncode == 0, told + stderr.decode()
    last = told.splitlines()[-1]
    balance = re.fullmatch(r"demo: (\d+) commands, (\d+) outcomes, (\d+) events, (\d+) parked: accounts balance", last)
    assert balance is not None, last
    commands, outcomes, events, parked = map(int, balance.groups())
    assert commands == outcomes > 1250
    assert 1000 < events < outcomes
    assert parked == 1
    assert told.count("accounts balance") == 1
    assert "✗" not in told
    for special in ("swap names", "rejected  409  Another organization has this name", "rejected  400", "unreadable"):
        assert special in told
    assert len(told.splitlines()) < 150
