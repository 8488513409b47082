"""Drills: each is planted, shows where it says, is not mended by waiting, and is by the commands of its hint.

All of them on one stack, one after the other, as an operator would practise.
"""

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import org_local
from org_service.cli import shell
from org_service.drilling import session
from org_service.drilling.drills import DRILLS
from org_service.local.roles import Standing
from org_service.local.stack import LocalStack
from org_service.settings import Settings
from tests.support.grafana import alerts
from tests.support.operating import Answer, Orgs
from tests.support.up import site
from tests.support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FOLDER = shell.UP_SOCKET.parent
ALERTS = {rule["alert"]: rule["expr"] for rule in alerts()}


@pytest.fixture(scope="module")
def up(
    stack: org_local.Stack, server_url: str, template_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A running stack, in whose folder the tests are."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("up")
        patch.chdir(folder)
        for name in [name for name in os.environ if name.startswith("ORGS_")]:
            patch.delenv(name)
        with site(stack, server_url, template_database, folder) as settings:
            yield settings


@pytest.fixture
async def orgs(up: Settings) -> AsyncIterator[Orgs]:
    """The commands; whatever a test leaves, the next one finds no drill under way and all roles as they should be."""
    command = Orgs(up)
    yield command
    if session.find(FOLDER) is not None:
        session.forget(FOLDER)
        await command("roles", "deploy", "worker", "relay", "edge", "operate")


async def follow(orgs: Orgs, command: str) -> Answer:
    program, *arguments = shlex.split(command)
    assert program == "orgs"
    return await orgs(*arguments)


@pytest.mark.parametrize("name", DRILLS)
async def test_a_drill_shows_is_not_mended_by_waiting_and_is_by_the_commands_of_its_hint(orgs: Orgs, name: str) -> None:
    planted = (await orgs("drill", name, "--json")).json
    assert planted["sights"], planted
    for each in planted["sights"]:
        if each["alert"] is not None:
            assert each["where"].partition("{")[0] in ALERTS[each["alert"]]
    before = (await orgs("drill", name, "--score", "--wait", "0", "--json", code=1)).json
    assert [each for each in before["marks"] if not each["ok"]]
    for command in (await orgs("drill", name, "--hint", "--json")).json["commands"]:
        await follow(orgs, command)
    after = (await orgs("drill", name, "--score", "--json")).json
    assert after["passed"], after
    assert session.find(FOLDER) is None


async def test_drills_are_listed_and_one_that_is_not_under_way_has_neither_hint_nor_score(orgs: Orgs) -> None:
    assert [each["name"] for each in (await orgs("drill", "--json")).json_lines] == list(DRILLS)
    for option in ("--hint", "--score", "--forget"):
        assert "is not under way" in (await orgs("drill", "bad-release", option, code=1)).stderr
    assert "unknown drill" in (await orgs("drill", "lost-head", code=2)).stderr


async def test_one_drill_is_under_way_at_a_time_and_can_be_given_up(orgs: Orgs) -> None:
    await orgs("drill", "bad-release")
    listed = {each["name"]: each["since"] for each in (await orgs("drill", "--json")).json_lines}
    assert [name for name, since in listed.items() if since] == ["bad-release"]
    assert "bad-release is under way" in (await orgs("drill", "lost-tail", code=1)).stderr
    again = (await orgs("drill", "bad-release")).stdout
    assert "alert OrgsBreakerOpen" in again
    assert not any(command in again for command in DRILLS["bad-release"].remedy({}))
    await orgs("drill", "bad-release", "--forget")
    await orgs("roles", "deploy", "worker")
    assert [each.release for each in await roles(orgs)] == ["current"] * 4


async def test_nothing_is_planted_on_other_servers_or_without_a_stack_of_this_folder(
    orgs: Orgs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = await orgs("drill", "lost-tail", code=1, ORGS_DATABASE__URL="postgresql://postgres@127.0.0.1:1/orgs")
    assert "name other servers than those that it started" in elsewhere.stderr
    monkeypatch.chdir(tmp_path)
    for arguments in (("drill", "lost-tail"), ("roles", "stop", "worker")):
        refused = (await orgs(*arguments, code=1)).stderr
        assert "none is running here. Nothing was done." in refused
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 - a folder of this test


async def test_kafka_comes_back_when_a_drill_is_killed_that_had_stopped_it(
    up: Settings, stack: org_local.Stack
) -> None:
    async with (await LocalStack.connect(shell.UP_SOCKET, up)).without_kafka():
        assert not stack.kafka.running
    assert stack.kafka.running
    _, writer = await asyncio.open_unix_connection(shell.UP_SOCKET)
    writer.write(b'{"do": "stop_kafka"}\n')
    await writer.drain()
    await until(lambda: not stack.kafka.running)
    writer.transport.abort()
    await until(lambda: stack.kafka.running)


async def test_roles_are_stopped_and_started_apart(orgs: Orgs) -> None:
    await orgs("roles", "stop", "edge", "operate")
    assert [each.state for each in await roles(orgs)] == ["running", "running", "stopped", "stopped"]
    await orgs("roles", "start", "edge", "operate")
    assert [each.state for each in await roles(orgs)] == ["running"] * 4


async def roles(orgs: Orgs) -> list[Standing]:
    return [Standing(**each) for each in (await orgs("roles", "list", "--json")).json_lines]
