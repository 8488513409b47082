"""The runbook of docs/operating.md: each symptom is brought about, each command of its entry is run as it stands there.

A test is named after its entry. One that does not run every command of the entry fails, and so does a command that
prints something else than the page says.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prometheus_client import REGISTRY

import org_local
from org_events.commands import Command, CreateOrganization, DeleteOrganization, UpdateOrganization
from org_service.cli import shell
from org_service.domain.reasons import OperationState
from org_service.drilling import session
from org_service.drilling.drill import Facts, Ground
from org_service.drilling.drills import DRILLS
from org_service.kafka.reader import ends, reader
from org_service.local.stack import LocalStack
from org_service.operate import runs
from org_service.operate.changes import Selection
from org_service.operate.undo import Undo
from org_service.settings import Settings
from org_service.telemetry.metrics import REFERENCE_LOSSES
from tests.integration.operate.parking import apply, failing_for, record, renamed
from tests.integration.worker.publishing import committed, send
from tests.integration.worker.running import running as running_worker
from tests.support import log_faults, runbook
from tests.support.database import execute, fetch, restore_older_backup
from tests.support.idle import wait_until_idle
from tests.support.killing import kill_at, until_abandoned
from tests.support.operating import Acting, Orgs, Service
from tests.support.probing import Killed, probing
from tests.support.records import record_of
from tests.support.relaying import org
from tests.support.restoring import replace_by
from tests.support.runbook import Following
from tests.support.up import as_up_has_them, hosting
from tests.support.waiting import WITHIN_S, until

pytestmark = pytest.mark.integration

ENTRIES = {entry.slug: entry for entry in runbook.read()}
FOLDER = shell.UP_SOCKET.parent
LONG_AGO = "2020-01-01"
"""For a time of the page, before everything that a test does."""


@pytest.fixture
async def follow(orgs: Orgs, request: pytest.FixtureRequest) -> AsyncIterator[Following]:
    """Follows the entry that the test is named after; at its end no command is left."""
    following = Following(ENTRIES[request.node.name.removeprefix("test_")], orgs)
    yield following
    if not request.session.testsfailed:
        following.see_finished()


@pytest.fixture
def up(settings: Settings, stack: org_local.Stack, orgs: Orgs) -> Iterator[Settings]:
    """What `orgs up` is, on the servers of this test; the commands are for it."""
    orgs.settings = as_up_has_them(settings, FOLDER)
    with hosting(orgs.settings, stack):
        yield orgs.settings


class Drilling:
    """Plants what an entry is about, and sees that following it mends it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def plant(self, name: str, follow: Following | None = None) -> Facts:
        """Plant a drill; its first symptom is what the entry says, where `follow` is given."""
        planted, sights = await session.plant(self._ground, FOLDER, DRILLS[name])
        if follow is not None:
            follow.sees(sights[0].shows)
        return planted.facts

    async def assert_mended(self) -> None:
        """Its score is that of a drill that passes."""
        planted = session.find(FOLDER)
        assert planted is not None
        marks = await session.judge(self._ground, FOLDER, DRILLS[planted.name], planted, WITHIN_S)
        assert all(each.ok for each in marks), marks


@pytest.fixture
async def drill(up: Settings) -> Drilling:
    """Drills on what is up."""
    return Drilling(Ground(await LocalStack.connect(shell.UP_SOCKET, up), up))


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


async def test_an_organization_is_stuck(follow: Following, up: Settings, drill: Drilling) -> None:
    facts = await drill.plant("parked-organization", follow)
    org_id = UUID(facts["org_id"])

    async def stuck(*commands: Command) -> None:
        with failing_for([org_id]):
            await apply(up, *(record(up, each) for each in commands))
        parked = await fetch(up, "SELECT min(id) AS id FROM parked WHERE state = 'open'")
        follow.words |= {"ORG": str(org_id), "PARKED": str(parked[0]["id"]), "GROUP": "…"}

    await stuck()
    await follow("orgs parked")
    await follow("orgs parked list")
    await follow("orgs parked show PARKED")
    await follow("orgs parked release --org ORG")
    await follow('orgs run ID --reason "fixed in 1.4.2"')
    await drill.assert_mended()
    await stuck(*renamed(org_id, "Acme 4"))
    await follow('orgs parked discard PARKED --execute --reason "nobody needs it"')
    await stuck(*renamed(org_id, "Amce AS"))
    edit = """orgs parked edit PARKED --body '{"name": "Acme AS"}' --execute --reason "the name has a typing error\""""
    await follow(edit)
    await follow("orgs parked")


async def test_a_bad_release_went_out(follow: Following, orgs: Orgs, up: Settings, drill: Drilling) -> None:
    """The bad one parks what it gets one by one before its own commands fail, as no breaker can know better."""
    await drill.plant("bad-release", follow)
    with failing_for([org(3), org(4)]):
        await apply(up, *(record(up, each) for each in creations(2, first=3)))
    follow.words["2026-11-28T03:00:00"] = LONG_AGO
    await follow("orgs replay commands --from-time 2026-11-28T03:00:00")
    await orgs("roles", "deploy", "worker")
    follow.words["GROUP"] = "…"
    answer = await follow("orgs parked")
    follow.words["GROUP"] = answer.stdout.split()[0]
    await follow("orgs parked release --group GROUP")
    await follow('orgs run ID --reason "rolled back to 1.4.1"')
    await drill.assert_mended()


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


async def test_reference_data_were_lost(follow: Following, orgs: Orgs, service: Service, settings: Settings) -> None:
    kafka, topic = settings.kafka, settings.kafka.topics.staff
    [spec] = [each for each in kafka.topics.specs(partitions=3) if each.name == topic]
    losses = REFERENCE_LOSSES.labels(topic)

    async def publish(*staff: str) -> None:
        for user in staff:
            await orgs("send", "staff", "--user", user)
        await until(lambda: fetch(settings, "SELECT user_id FROM staff ORDER BY 1"), [(user,) for user in staff])

    service.start("worker", "relay")
    await publish("sam")
    before = losses._value.get()
    await asyncio.to_thread(log_faults.recreate_topic, kafka.bootstrap_servers, topic, 3, spec.config)
    await publish("sam", "sue")
    assert losses._value.get() > before
    await wait_until_idle(settings, WITHIN_S)
    await follow("orgs verify")


async def test_kafka_lost_records(follow: Following, orgs: Orgs, drill: Drilling) -> None:
    await drill.plant("lost-tail")
    await orgs("roles", "start", "relay")
    await follow("orgs verify")
    await drill.assert_mended()


async def test_a_stranger_writes_to_our_topics(follow: Following, orgs: Orgs, drill: Drilling) -> None:
    await drill.plant("foreign-writer", follow)
    await orgs("roles", "stop", "relay")  # else its log is among what the command prints
    await follow("orgs topics accept")
    await follow('orgs run ID --reason "an importer of the test environment, stopped"')
    await orgs("roles", "start", "relay")
    await drill.assert_mended()


async def test_a_subscriber_is_stuck(follow: Following, drill: Drilling) -> None:
    facts = await drill.plant("stuck-subscriber")
    follow.words["GROUP"] = facts["group"]
    await follow("orgs offsets show GROUP")
    await follow("orgs offsets reset GROUP --to-latest")
    await follow('orgs run ID --reason "billing loads again"')
    await follow("orgs offsets")
    await drill.assert_mended()


async def test_a_signing_key_was_stolen(follow: Following, drill: Drilling) -> None:
    facts = await drill.plant("revoked-key")
    follow.words |= {"ORG": next(iter(facts["names"])), "COMMAND": "…"}
    answer = await follow("orgs history ORG")
    follow.words["COMMAND"] = answer.stdout.split()[-1]
    await follow("orgs trace COMMAND")
    await follow("orgs token --withdraw-key")
    await follow("orgs undo --source /thief")
    await follow('orgs run ID --reason "sent with a stolen key"')
    await drill.assert_mended()


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
    follow: Following, orgs: Orgs, up: Settings, drill: Drilling
) -> None:
    await drill.plant("restored-backup", follow)
    await orgs("roles", "stop", "worker", "relay", "edge")
    await follow("orgs recover")
    await follow('orgs run ID --reason "the disk of the primary is gone"')
    await orgs("roles", "start", "worker")
    await orgs("roles", "start", "relay", "edge")
    await follow("orgs verify")
    await drill.assert_mended()
    await orgs("roles", "stop", "worker", "relay", "edge", "operate")
    await restore_older_backup(up, 2)  # now as if it were of another history
    await follow("orgs journal advance")
    await follow('orgs run ID --reason "the backup of last night is the newest one"')
    await orgs("roles", "start", "relay", "worker", "edge", "operate")
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
