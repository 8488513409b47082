"""The runbook of docs/operating.md: each symptom is brought about, each command of its entry is run as it stands there.

A test is named after its entry. One that does not run every command of the entry fails, and so does a command that
prints something else than the page says.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

from org_events.commands import Command, CreateOrganization, DeleteOrganization, UpdateOrganization
from org_service.domain.reasons import OperationState
from org_service.drilling.builds import Build
from org_service.errors import StopError
from org_service.kafka.reader import ends, reader
from org_service.operate import runs
from org_service.operate.changes import Selection
from org_service.operate.undo import Undo
from org_service.settings import Settings
from tests.integration.operate.parking import apply, failing_for, record, renamed
from tests.integration.worker.publishing import committed, send
from tests.integration.worker.running import running as running_worker
from tests.integration.worker.running import said
from tests.support import log_faults, runbook
from tests.support.database import execute, fetch, restore_older_backup
from tests.support.idle import wait_until_idle
from tests.support.killing import kill_at, until_abandoned
from tests.support.operating import Acting, Orgs, Service
from tests.support.partitioner import partition_of
from tests.support.probing import Killed, probing
from tests.support.records import record_of
from tests.support.relaying import org
from tests.support.restoring import replace_by
from tests.support.runbook import Following
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ENTRIES = {entry.slug: entry for entry in runbook.read()}
LONG_AGO = "2020-01-01"
"""For a time of the page, before everything that a test does."""


@pytest.fixture
async def follow(orgs: Orgs, request: pytest.FixtureRequest) -> AsyncIterator[Following]:
    """Follows the entry that the test is named after; at its end no command is left."""
    following = Following(ENTRIES[request.node.name.removeprefix("test_")], orgs)
    yield following
    if not request.session.testsfailed:
        following.see_finished()


def creations(count: int, first: int = 0) -> list[Command]:
    return [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(first, first + count)]


def lines(file: Path, organizations: list[dict[str, object]]) -> str:
    file.write_text("".join(json.dumps(each) + "\n" for each in organizations))
    return str(file)


async def under_way(settings: Settings, operation_id: UUID, state: OperationState = OperationState.RUNNING) -> None:
    async def is_so() -> bool:
        found = await runs.find(settings, operation_id)
        return found.state == state and found.done > 0

    await until(is_so)


def test_each_entry_with_commands_has_its_test() -> None:
    tests = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {slug for slug, entry in ENTRIES.items() if any(entry.commands())} <= tests


def test_commands_stand_in_blocks_where_they_are_run() -> None:
    known = {command.text for entry in ENTRIES.values() for command in entry.commands()}
    for entry in ENTRIES.values():
        for quoted in re.findall(r"`(orgs [^`]+)`", entry.prose):
            assert any(text.startswith(quoted) for text in known), f"{entry.title}: `{quoted}`"


def test_each_metric_that_the_runbook_names_exists() -> None:
    known = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    known |= {f"{family.name}{end}" for family in REGISTRY.collect() for end in ("", "_total")}
    for entry in ENTRIES.values():
        assert set(re.findall(r"`(orgs_[a-z_]+)", entry.text)) <= known, entry.title


async def test_lag_grows(follow: Following, orgs: Orgs, settings: Settings, running: Service, tmp_path: Path) -> None:
    file = lines(tmp_path / "new.jsonl", [{"id": str(org(n)), "name": f"Acme {n}"} for n in range(60)])
    planning = ("apply", file, "--actor", "alice", "--reason", "corrections", "--rate-per-second-max", "10", "--json")
    planned = (await orgs(*planning)).json["id"]
    follow.words["ID"] = planned
    going_on = asyncio.create_task(runs.run(settings, UUID(planned)))
    await under_way(settings, UUID(planned))
    follow.words["ORG"] = "…"
    await follow("orgs tail commands --no-follow --last 1")
    await follow("orgs runs")
    await follow("orgs runs rate ID --rate-per-second-max 20")
    await follow("orgs runs pause ID")
    assert (await going_on).state == OperationState.PAUSED
    await follow("orgs runs resume ID")


async def test_an_organization_is_stuck(follow: Following, settings: Settings, queue: UUID, service: Service) -> None:
    async def stuck(org_id: UUID, *commands: Command) -> None:
        with failing_for([org_id]):
            await apply(settings, *(record(settings, each) for each in commands))
        parked = await fetch(settings, "SELECT min(id) AS id FROM parked WHERE state = 'open'")
        follow.words |= {"ORG": str(org_id), "PARKED": str(parked[0]["id"])}

    async with running_worker(settings) as worker:
        follow.sees(await worker.checks()["parked"]())
    await stuck(queue)
    follow.words["GROUP"] = "…"
    await follow("orgs parked")
    await follow("orgs parked list")
    await follow("orgs parked show PARKED")
    await follow("orgs parked release --org ORG")
    await follow('orgs run ID --reason "fixed in 1.4.2"')
    await stuck(queue, *renamed(queue, "Acme 4"))
    await follow('orgs parked discard PARKED --execute --reason "nobody needs it"')
    await stuck(queue, *renamed(queue, "Amce AS"))
    service.start("worker", "relay")
    edit = """orgs parked edit PARKED --body '{"name": "Acme AS"}' --execute --reason "the name has a typing error\""""
    await follow(edit)
    await follow("orgs parked")


async def test_a_bad_release_went_out(follow: Following, settings: Settings) -> None:
    """The bad one parks what it gets one by one before its own commands fail, as no breaker can know better."""
    await send(settings, *map(record_of, creations(3)))
    async with running_worker(settings):
        await until(lambda: committed(settings), 3)
    with failing_for([org(3), org(4)]):
        await apply(settings, *(record(settings, each) for each in creations(2, first=3)))
    await send(settings, *map(record_of, creations(10, first=5)))
    pauses = {"breaker_wait_s": 30, "breaker_wait_max_s": 30}
    patient = settings.model_copy(update={"worker": settings.worker.model_copy(update=pauses)})
    async with running_worker(patient, decider=Build()) as bad:

        async def is_resting() -> bool:
            return (await said(bad, "breaker")).startswith("commands are left to other workers: ")

        await until(is_resting)
        follow.sees(await said(bad, "breaker"))
        follow.words["2026-11-28T03:00:00"] = LONG_AGO
        await follow("orgs replay commands --from-time 2026-11-28T03:00:00")
        async with running_worker(settings):
            await until(lambda: committed(settings), 13)
            follow.words["GROUP"] = "…"
            answer = await follow("orgs parked")
            follow.words["GROUP"] = answer.stdout.split()[0]
            await follow("orgs parked release --group GROUP")
            await follow('orgs run ID --reason "rolled back to 1.4.1"')


async def test_a_subscriber_lost_data(follow: Following, orgs: Orgs, running: Service) -> None:
    await orgs("send", "create", "--id", str(org(1)), "--name", "Acme")
    await orgs("send", "update", str(org(1)), "--domain", "acme.example")
    await orgs("send", "create", "--name", "Globex")
    follow.words |= {"ORG": str(org(1)), "2026-11-27T22:00:00": LONG_AGO, "TOPIC": "…"}
    await follow("orgs replay events --from-time 2026-11-27T22:00:00")
    await follow('orgs run ID --reason "billing restored last night\'s backup"')
    await follow('orgs replay events --org ORG --in-place --execute --reason "billing misses ORG"')


async def test_somebody_renamed_the_wrong_500(follow: Following, act: Acting) -> None:
    await act("alice", creations(500))
    await act("mallory", [UpdateOrganization(org_id=org(n), name=f"Wrong {n}") for n in range(500)])
    await act("carol", [UpdateOrganization(org_id=org(9), name="Nine")])
    follow.words |= {"ORG": str(org(7)), "OTHER": str(org(9)), "2026-11-28T03:00:00": LONG_AGO}
    await follow("orgs history ORG")
    await follow("orgs undo --by mallory --from-time 2026-11-28T03:00:00")
    await follow('orgs run ID --reason "renamed by mistake"', code=1)
    follow.words["RUN"] = follow.words["ID"]
    await follow("orgs undo --by mallory --from-time 2026-11-28T03:00:00")
    await follow("orgs undo --run RUN")


async def test_a_wrong_file_was_applied(
    follow: Following, orgs: Orgs, settings: Settings, act: Acting, tmp_path: Path
) -> None:
    await act("alice", creations(20))
    wrong = lines(tmp_path / "wrong.jsonl", [{"id": str(org(n)), "name": f"Acme {n} AS"} for n in range(40)])
    ran = (await orgs("apply", wrong, "--execute", "--reason", "new prices", "--json")).json
    follow.words["ID"] = ran["id"]
    await follow("orgs runs")
    await follow("orgs undo --run ID")
    await follow('orgs run ID --reason "the file was last year\'s"')
    alive = await fetch(settings, "SELECT name FROM organization WHERE deleted_at IS NULL ORDER BY id")
    assert [row["name"] for row in alive] == [f"Acme {n}" for n in range(20)]


async def test_many_organizations_have_to_be_corrected(follow: Following, act: Acting) -> None:
    await act("alice", creations(40))
    await follow('orgs mark before-corrections --reason "new addresses"')
    await follow("orgs export organizations.csv")
    correct(Path("organizations.csv"), Path("corrections.csv"))
    await follow("orgs apply corrections.csv")
    await follow('orgs run ID --reason "new addresses"', code=1)
    await follow("orgs undo --from-mark before-corrections")


async def test_an_organization_must_be_erased(follow: Following, settings: Settings, act: Acting) -> None:
    await act("alice", creations(2))
    await act("alice", [DeleteOrganization(org_id=org(n)) for n in range(2)])
    await execute(
        settings, "UPDATE organization SET deleted_at = deleted_at - interval '31 days' WHERE id = $1", org(0)
    )
    follow.words |= {"ORG": str(org(0)), "OTHER": str(org(1))}
    await follow("orgs erase ORG")
    await follow('orgs run ID --reason "letter of 28 November"')
    await follow("orgs erase --status ORG", code=1)
    await follow("orgs erase OTHER --before-grace")


def correct(exported: Path, corrected: Path) -> None:
    assert len(exported.read_text().splitlines()) == 41
    corrected.write_text(
        f"id,name,domain\n{org(1)},Acme 1,acme-1.example\n{org(2)},Acme 2,\n{org(3)},Acme three,\n{org(4)},ACME 5,\n"
    )


async def test_commands_were_lost(follow: Following, settings: Settings) -> None:
    kafka, topic = settings.kafka, settings.kafka.topics.commands
    await send(settings, *map(record_of, renamed(org(0), "One", "Two", "Three")))
    async with reader(kafka, topic) as (consumer, partitions):
        (filled,) = [each.partition for each, end in (await ends(consumer, partitions)).items() if end]
    async with running_worker(settings):  # which notes where the log is
        await until(lambda: committed(settings), 3)
    await send(settings, *map(record_of, renamed(org(0), "Four", "Five", "Six")))
    await asyncio.to_thread(log_faults.delete_records, kafka.bootstrap_servers, topic, {filled: 5})
    async with running_worker(settings):
        await until(lambda: committed(settings), 6)
    await follow("orgs lost")


async def test_a_stranger_writes_to_our_topics(
    follow: Following, orgs: Orgs, service: Service, settings: Settings
) -> None:
    service.start("worker", "relay")
    await orgs("send", "create", "--id", str(org(1)), "--name", "Acme")
    await wait_until_idle(settings, 20)
    kafka, topic = settings.kafka, settings.kafka.topics.events
    place = partition_of(str(org(1)).encode(), kafka.partitions)
    before = REGISTRY.get_sample_value("orgs_relay_foreign_total", {"topic": topic}) or 0
    await asyncio.to_thread(log_faults.write_as_stranger, kafka.bootstrap_servers, topic, [place], "stranger")
    await orgs("send", "update", str(org(1)), "--domain", "acme.example", "--no-wait")
    await until(lambda: (REGISTRY.get_sample_value("orgs_relay_foreign_total", {"topic": topic}) or 0) > before)
    await service.stop("relay")  # else its log is among what the command prints
    await follow("orgs topics accept")
    await follow('orgs run ID --reason "an importer of the test environment, stopped"')
    service.start("relay")
    await wait_until_idle(settings, 20)


async def test_a_run_does_not_go_on(follow: Following, settings: Settings, act: Acting) -> None:
    await act("alice", creations(40))
    impatient = settings.model_copy(update={"operate": settings.operate.model_copy(update={"lease_s": 1})})
    tool = await Undo.make(impatient, Selection(actors=("alice",)))
    kept = [(await runs.keep_plan(impatient, tool, requested_by="bob", reason="a test"))[0] for _ in range(2)]
    old, planned = (each.id for each in kept)
    follow.words |= {"ID": str(planned), "OLD": str(old)}
    with probing("operate.before_publish", kill_at(1)), pytest.raises(Killed):
        await runs.run(impatient, planned)
    with pytest.raises(runs.NotRunnableError) as refused:
        await runs.run(impatient, old)
    follow.sees(str(refused.value))
    await until_abandoned(impatient, planned)
    await follow("orgs runs")
    await follow("orgs runs resume ID")
    await follow("orgs runs cancel OLD")


async def test_the_database_was_restored_from_an_older_backup(
    follow: Following, orgs: Orgs, service: Service, settings: Settings
) -> None:
    service.start("worker", "relay")
    for number in range(5):
        await orgs("send", "create", "--name", f"Acme {number}")
    await wait_until_idle(settings, 20)
    await service.stop()
    await restore_older_backup(settings, 2)
    service.start("relay")
    trouble = await service.ended("relay")
    assert isinstance(trouble, StopError)
    follow.sees(str(trouble))
    await follow("orgs recover")
    await follow('orgs run ID --reason "the disk of the primary is gone"')
    service.start("worker", "relay")
    await wait_until_idle(settings, 20)
    await follow("orgs verify")
    await service.stop()
    await restore_older_backup(settings, 2)  # now as if it were of another history
    await follow("orgs journal advance")
    await follow('orgs run ID --reason "the backup of last night is the newest one"')
    service.start("relay", "worker")
    await follow("orgs journal advance", code=1)


async def test_the_database_is_lost(
    follow: Following, orgs: Orgs, service: Service, settings: Settings, template_database: str
) -> None:
    service.start("worker", "relay")
    for number in range(5):
        await orgs("send", "create", "--name", f"Acme {number}")
    await wait_until_idle(settings, 20)
    await service.stop()
    await replace_by(settings, template_database)
    await follow("orgs rebuild")
    await follow('orgs run ID --reason "there is no backup"')
    service.start("worker", "relay")
    await wait_until_idle(settings, 20)
    await follow("orgs verify")


async def test_a_process_does_not_get_ready(follow: Following) -> None:
    await follow("orgs migrate")
    await follow("orgs topics apply --dry-run")
