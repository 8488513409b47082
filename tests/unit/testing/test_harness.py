"""The harness, the usage manifest and the stand-in of the client."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

import pytest_orgs
from org_events import FieldError, Outcome, ProblemType, UpdateOrganization
from org_events.publishing import KafkaUnavailable, OrganizationClient, OutcomeUnknown
from org_events.testing import DeliveredChange, SubscriberHarness, Usage, golden_messages, on_topic
from org_events.testing.publisher import FakeOrganizationClient, fails, parked, rejected, unknown
from org_events.testing.usage import read_manifest, touches

ORG = UUID("0a000000-0000-7000-8000-000000000007")
COMMAND = UUID("0c000000-0000-7000-8000-000000000007")


async def test_a_manifest_has_what_a_handler_read_and_nothing_else() -> None:
    seen: dict[UUID, object] = {}
    kept: list[Any] = []

    async def handler(change: DeliveredChange) -> None:
        if change.type == "org.updated" and change.after is not None and change.after.primary_address is not None:
            assert isinstance(change, DeliveredChange)
            seen[change.org_id] = change.after.name, change.after.primary_address.city, change.headers["ce_commandid"]
        if change.type == "organization":
            kept.append((change.version, change.after))
        if change.type == "org.restored" and change.after is not None:
            change.after.model_dump()

    usage = Usage("search-index")
    harness = SubscriberHarness(handler, usage=usage)
    await harness.deliver([*on_topic("orgs.events", golden_messages()), *on_topic("orgs.state", golden_messages())])
    read = usage.manifest()["reads"]
    assert read["org.updated"] == {
        "body": ["after.name", "after.primary_address.city", "org_id"],
        "headers": ["ce_commandid", "ce_type"],
    }
    assert read["org.deleted"] == {"body": [], "headers": ["ce_type"]}
    assert read["org.restored"] == {"body": ["after.*"], "headers": ["ce_type"]}
    assert read["organization"] == {"body": [], "headers": ["ce_orgversion"]}
    assert read_manifest(usage.to_text()) == usage.manifest()
    assert kept[0][1].name == 'Ål & "Sønn"'  # what a test reads afterwards is not the handler's doing
    assert usage.manifest()["reads"]["organization"]["body"] == []


async def test_a_handler_of_records_uses_them_whole() -> None:
    async def handler(message: object) -> None: ...

    usage = Usage("raw")
    await SubscriberHarness(handler, adapt=lambda message: message, usage=usage).deliver(golden_messages()[1:2])
    [read] = usage.manifest()["reads"].values()
    assert read["body"] == ["*"]
    assert "ce_actor" in read["headers"]


@pytest.mark.parametrize(
    ("path", "changed", "touched"),
    [
        ("after.name", "after.name", True),
        ("after.name", "after", True),
        ("after.primary_address.city", "after.primary_address", True),
        ("after.*", "after.name", True),
        ("*", "anything", True),
        ("after", "after.name", True),
        ("after.name", "after.names", False),
        ("after.name", "before.name", False),
        ("changed", "changed[]", True),
    ],
)
def test_a_change_touches_what_it_is_in_and_what_is_in_it(path: str, changed: str, touched: bool) -> None:
    assert touches([path], changed) == ([path] if touched else [])


def test_what_is_no_manifest_is_rejected() -> None:
    with pytest.raises(ValueError, match="program, contract, reads and sends"):
        read_manifest(json.dumps({"program": "x"}))


async def rename(orgs: OrganizationClient) -> Outcome:
    """Of a publisher: what is under test."""
    try:
        result = await orgs.update(ORG, name="Acme", command_id=COMMAND)
    except OutcomeUnknown as unknown:
        result = await orgs.update(ORG, name="Acme", command_id=unknown.command_id)
    return result.outcome


async def test_a_publisher_is_tested_without_kafka() -> None:
    fake = FakeOrganizationClient(source="/crm", actor="ann", token="abc")
    async with fake as orgs:
        assert await rename(orgs) is Outcome.APPLIED
    [sent] = fake.sent
    assert (sent.type, sent.body) == ("org.update", {"org_id": str(ORG), "name": "Acme"})
    assert sent.headers["ce_id"] == str(COMMAND)
    assert sent.headers["ce_source"] == "/crm"
    assert sent.headers["authorization"] == "Bearer abc"
    assert fake.organizations[ORG].name == "Acme"


async def test_a_test_chooses_the_outcomes() -> None:
    fake = FakeOrganizationClient()
    wrong = FieldError(path="name", code="blank", message="Must have …")
    fake.answer_next(rejected(ProblemType.INVALID_FIELDS, errors=[wrong]), parked())
    result = await fake.create(ORG, name="Acme")
    assert (result.code, result.problem and result.problem.errors) == (422, [wrong])
    assert not (await fake.delete(ORG)).final
    fake.answer_next(fails(KafkaUnavailable("away")))
    with pytest.raises(KafkaUnavailable):
        await fake.delete(ORG)
    assert len(fake.sent) == 2  # the third was not
    with pytest.raises(ValueError, match="nil or max UUID"):
        await fake.delete(ORG, command_id=UUID(int=0))


async def test_a_repeated_command_gets_the_first_outcome_and_another_one_is_rejected() -> None:
    fake = FakeOrganizationClient()
    fake.answer_next(unknown(), rejected(ProblemType.NAME_TAKEN))
    assert await rename(fake) is Outcome.REJECTED  # which sent it twice
    assert [sent.command_id for sent in fake.sent] == [COMMAND, COMMAND]
    assert await rename(fake) is Outcome.REJECTED
    other = await fake.update(ORG, name="Bolt", command_id=COMMAND)
    assert other.problem is not None
    assert other.problem.type == ProblemType.COMMAND_ID_REUSED
    results = [result async for result in fake.execute_many([(COMMAND, UpdateOrganization(org_id=ORG, name="Acme"))])]
    assert [result.outcome for result in results] == [Outcome.REJECTED]
    assert (await fake.outcome((await fake.send(UpdateOrganization(org_id=ORG))).command_id)).outcome is Outcome.APPLIED


def run_pytest(folder: Path, *arguments: str) -> str:
    """As a team does in its own repository."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return ended.stdout + ended.stderr


def test_a_team_gets_fixtures_and_a_manifest_from_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    (tmp_path / "pytest.ini").write_text("[pytest]\norgs_program = crm\n")
    printed = run_pytest(tmp_path, "--orgs-usage")
    assert "18 passed" in printed
    assert "orgs-usage.json is written" in printed
    manifest = json.loads((tmp_path / "orgs-usage.json").read_text())
    assert manifest["program"] == "crm"
    assert manifest["sends"] == {"org.update": ["domain", "name", "org_id"]}
    assert manifest["reads"] == {"org.created": {"body": ["version"], "headers": []}}


@pytest.mark.parametrize(
    ("program", "processes", "why"),
    [("", None, "name your program by the setting orgs_program"), ("crm", 2, "run the tests in one process")],
)
def test_no_manifest_is_recorded_without_a_name_or_by_several_processes(
    program: str, processes: int | None, why: str
) -> None:
    options = {"orgs_usage": "orgs-usage.json", "numprocesses": processes}
    config: Any = SimpleNamespace(getoption=lambda name, default=None: options[name], getini=lambda name: program)
    with pytest.raises(pytest.UsageError, match=why):
        pytest_orgs.pytest_configure(config)


THEIRS = """
import asyncio
from uuid import uuid4

from org_events.testing import SubscriberHarness

def test_sends(fake_orgs):
    asyncio.run(fake_orgs.update(uuid4(), name="Acme", domain=None))

def test_reads(orgs_golden):
    async def handler(change):
        assert change.version

    asyncio.run(SubscriberHarness(handler).deliver(orgs_golden[1:2]))

def test_each_event(orgs_event):
    assert orgs_event.topic == "orgs.events"
"""
