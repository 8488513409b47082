"""Histories that are hard to write again: names that change hands, topics that grew, tokens, erasure."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from org_service.domain.reasons import OperationState
from org_service.operate import grow_topics, runs
from org_service.operate.erase import Erase
from org_service.operate.grow_topics import GrowTopics
from org_service.operate.restoring import reading, steps
from org_service.relay import relay
from org_service.settings import Settings
from org_service.worker import commands
from tests.integration.operate.parking import failing_for, release
from tests.integration.operate.restoring import IDLE_S, LEFT, RIGHT, STUCK, Loss, command, decide
from tests.support.database import execute, fetch
from tests.support.erasing import ADDRESS, CONTACT, DOMAIN, NAME, at_once, find_canary
from tests.support.idle import wait_until_idle
from tests.support.operating import Service
from tests.support.partitioner import partition_of
from tests.support.random_commands import RandomCommands
from tests.support.rehearsing import publish
from tests.support.sending import Sending, acting_as
from tests.support.signing import Signing
from tests.support.verified import find_differences

pytestmark = pytest.mark.integration

IDS = [f"0b000000-0000-4000-8000-{number:012d}" for number in range(100)]
OTHERS = [each for each in IDS if partition_of(each.encode(), 3) == 1][:6]
"""Of one partition, so that their commands are decided in the order in which they are sent."""
MOVING = next(each for each in IDS if partition_of(each.encode(), 3) != partition_of(each.encode(), 6))
"""Its partition is another one when three have become six."""


async def outcomes(settings: Settings, sendings: list[Sending]) -> list[int]:
    """The codes of commands that were decided."""
    codes = {row["command_id"]: row["code"] for row in await fetch(settings, "SELECT command_id, code FROM journal")}
    return [codes[UUID(each.command_id or "")] for each in sendings]


async def test_names_that_changed_hands_come_back_in_the_smallest_steps(
    settings: Settings, service: Service, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step is a transaction that Postgres checks: no two organizations may have a name at its end."""
    monkeypatch.setattr(reading, "STEP_RECORDS", 1)
    for bound in ("STEP_COMMANDS", "STEP_ORGANIZATIONS", "STEP_ERASED", "GAP_POSITIONS"):
        monkeypatch.setattr(steps, bound, 1)
    names = ["One", "Two", "Three", "Four", "Five", "Six"]
    made = [command(each, "org.create", OTHERS[each], name=name) for each, name in enumerate(names)]
    await decide(settings, service, made)
    await loss.back_up()
    # A ring in one direction and one in the other: whatever the order, somebody takes what another one still has.
    hands = [(0, "Passing"), (2, "One"), (1, "Three"), (0, "Two"), (3, "Also passing"), (4, "FOUR"), (5, "Five")]
    await decide(
        settings,
        service,
        [
            *(command(10 + number, "org.update", OTHERS[who], name=name) for number, (who, name) in enumerate(hands)),
            command(20, "org.delete", OTHERS[5]),
            command(21, "org.update", OTHERS[3], name="Five"),
        ],
    )
    await loss.come_back()
    held = await fetch(settings, "SELECT id, name FROM organization WHERE name_key IS NOT NULL ORDER BY id")
    assert [row["name"] for row in held] == ["Two", "Three", "One", "Five", "FOUR"]
    claims = [
        command(30, "org.create", LEFT, name="one"),
        command(31, "org.create", LEFT, name="Six"),
        command(32, "org.create", RIGHT, name="passing"),
        command(33, "org.restore", OTHERS[5]),
    ]
    await decide(settings, service, claims)
    assert await outcomes(settings, claims) == [409, 200, 200, 409]
    assert await find_differences(settings) == []


async def grow(settings: Settings) -> None:
    operation, _ = await runs.keep_plan(
        settings, await GrowTopics.make(settings, 6, []), requested_by="alice", reason="a test"
    )
    done = await runs.run(settings, operation.id)
    assert done.state == OperationState.DONE, done.error


async def test_topics_that_grew_are_read_as_they_were_written(
    settings: Settings, service: Service, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old records lie where they belonged; of an organization whose commands are parked some lie in each partition."""
    monkeypatch.setattr(grow_topics, "CLIENTS_KNOW_S", 1.0)
    monkeypatch.setattr(relay, "PARTITIONS_LOOK_S", 0.3)
    monkeypatch.setattr(commands, "LOOK_S", 0.3)
    stuck, some = MOVING, RandomCommands(21, 30)
    queue = [
        command(1, "org.create", stuck, name="Stuck"),
        command(2, "org.update", stuck, name="Stuck, too"),
        command(3, "org.update", stuck, domain="stuck.example.com"),
        command(4, "org.update", stuck, name="Stuck no more"),
    ]
    with failing_for({UUID(stuck)}):
        service.start("worker", "relay")
        await publish(settings, [*some.commands(120), *queue[:2]])
        await wait_until_idle(settings, IDLE_S)
        await service.stop()
        await loss.back_up()
        service.start("worker", "relay")
        await publish(settings, some.commands(30))
        await wait_until_idle(settings, IDLE_S)
        await grow(settings)
        await publish(settings, [*some.commands(120), *queue[2:]])
        await wait_until_idle(settings, IDLE_S)
        await service.stop()
    await loss.come_back()
    waiting = "SELECT command_id FROM parked WHERE org_id = $1 ORDER BY id"
    ids = [str(row["command_id"]) for row in await fetch(settings, waiting, UUID(stuck))]
    assert ids == [each.command_id for each in queue]
    assert (await release(settings, org_ids=(UUID(stuck),))).counts == {"applied": 4}
    await decide(settings, service, list(some.commands(60)))
    assert await find_differences(settings) == []


async def test_commands_with_tokens_come_back_with_their_actors(
    settings: Settings, service: Service, loss: Loss, tmp_path: Path
) -> None:
    """Of what changed nothing only the token says who it was, of what was parked it is verified once more."""
    tokens = Signing(settings, tmp_path)
    settings, service = tokens.settings, Service(tokens.settings)
    loss.settings = settings
    await execute(settings, "INSERT INTO staff VALUES ('staff')")
    await decide(settings, service, [tokens.signed(command(1, "org.create", LEFT, name="Left"), "staff")])
    await loss.back_up()
    await decide(
        settings,
        service,
        [
            tokens.signed(command(2, "org.update", LEFT, name="Left, too"), "staff"),
            tokens.signed(command(3, "org.update", LEFT, name="Left, too"), "staff"),
            tokens.signed(command(4, "org.update", LEFT, name="Mine"), "stranger"),
            tokens.signed(command(5, "org.update", LEFT, name="Late"), "staff", ttl_s=-500),
            acting_as(command(6, "org.update", LEFT, name="Nobody's"), "somebody"),
            tokens.signed(command(7, "org.update", LEFT, nothing="known", expected_version="x"), "staff"),
            tokens.signed(command(8, "org.create", STUCK, name="Stuck"), "staff"),
        ],
    )
    told = "SELECT code, actor FROM journal ORDER BY command_id"
    was = [tuple(row) for row in await fetch(settings, told)]
    assert was == [
        (200, "staff"),
        (200, "staff"),
        (200, "staff"),
        (404, "stranger"),
        (401, None),
        (401, None),
        (422, "staff"),
    ]
    [parked] = await fetch(settings, "SELECT actor, authenticated_by FROM parked")
    assert tuple(parked) == ("staff", "token")
    await loss.come_back()
    assert [tuple(row) for row in await fetch(settings, told)] == was


async def erase(settings: Settings, org_id: str) -> None:
    at_hand: Any = at_once(settings)
    operation, _ = await runs.keep_plan(at_hand, await Erase.make(at_hand, org_id), requested_by="bob", reason="a test")
    done = await runs.run(at_hand, operation.id)
    assert done.state == OperationState.DONE, done.error


def lived(first: int, org_id: str, name: str) -> list[Sending]:
    """A life that says much of somebody."""
    sendings = [
        command(first, "org.create", org_id, name=name, domain=DOMAIN, primary_address=ADDRESS),
        command(first + 1, "org.update", org_id, name=name),
        command(first + 2, "org.update", org_id, domain=f"www.{DOMAIN}", expected_version=9),
        command(first + 3, "org.deactivate", org_id),
        command(first + 4, "org.delete", org_id),
    ]
    return [acting_as(each, CONTACT) for each in sendings]


async def test_what_was_erased_stays_erased_though_topics_still_have_it(
    settings: Settings, service: Service, loss: Loss
) -> None:
    early, late, both = OTHERS[0], OTHERS[1], OTHERS[2]
    await decide(settings, service, [*lived(1, early, NAME), *lived(11, both, f"{NAME} II")])
    await erase(settings, early)
    await decide(settings, service, [])
    await loss.back_up()
    await decide(settings, service, [*lived(21, late, NAME), command(30, "org.create", LEFT, name="Left")])
    await erase(settings, late)
    await erase(settings, both)
    await decide(settings, service, [])
    assert await find_canary(settings) == {}
    await loss.come_back()
    assert await find_canary(settings) == {}
    again = [command(40, "org.restore", late), command(41, "org.create", early, name="Again")]
    await decide(settings, service, again)
    assert await outcomes(settings, again) == [410, 409]
    assert await find_differences(settings) == []
