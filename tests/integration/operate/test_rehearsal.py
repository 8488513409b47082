"""Commands are decided again where it changes nothing: no difference by the same rules, and each one by others."""

import asyncio
import re
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from org_events.commands import UpdateOrganization
from org_events.results import ProblemType
from org_local.issuer import Issuer
from org_service.domain.decide import decide, reject
from org_service.domain.policy import read_policy
from org_service.errors import PreconditionError, RetryError
from org_service.operate.commands import CommandSelection
from org_service.operate.rehearsing import rehearsal as rehearsals
from org_service.operate.rehearsing.rehearsal import Rehearsal
from org_service.settings import Settings
from tests.support.database import connected, execute
from tests.support.operating import Orgs
from tests.support.probing import probing
from tests.support.random_commands import RandomCommands
from tests.support.rehearsing import checksums, decided, end_of, ends, publish, rehearse, temporary_tables
from tests.support.sending import Sending, binary
from tests.support.signing import Signing
from tests.support.waiting import until

pytestmark = pytest.mark.integration

ORG, OTHER, THIRD = (f"0190c5f0-7d1c-7b7e-9d57-00000000000{number}" for number in (1, 2, 3))


def command_id(number: int) -> str:
    return f"0190c5f0-7d1c-7b7e-9d57-{number:012x}"


def create(number: int, org_id: str, name: str) -> Sending:
    return binary(command_id(number), "org.create", org_id, name=name)


def rename(number: int, org_id: str, name: str) -> Sending:
    return binary(command_id(number), "org.update", org_id, name=name)


def no_renames(command: Any, organization: Any, *about: Any, **more: Any) -> Any:
    """The rules, but that what is named `Firm 3` keeps its name."""
    renames = isinstance(command, UpdateOrganization) and "name" in command.model_fields_set
    if renames and organization is not None and organization.name_key == "firm 3":
        return reject(ProblemType.FORBIDDEN, "Firm 3 keeps its name.", organization.version)
    return decide(command, organization, *about, **more)


async def test_what_was_decided_by_these_rules_is_decided_the_same_and_nothing_is_written(settings: Settings) -> None:
    await decided(settings, RandomCommands(1, 60).commands(4_000))
    before, topics = await checksums(settings), await ends(settings)
    report, found = await rehearse(settings)
    assert found == []
    assert report.records + report.left_out.total() == await end_of(settings) == 4_000
    assert report.outcomes.keys() >= {"applied 200", "unchanged 200", "rejected 409", "rejected 404", "parked"}
    assert await checksums(settings) == before
    assert await ends(settings) == topics
    await until(lambda: has_none(settings))


@pytest.mark.parametrize("seed", range(2))
async def test_any_part_of_the_topic_gives_no_difference_either(settings: Settings, seed: int) -> None:
    """Organizations begin as they were, names are with whoever held them then, and what came before is known."""
    crowd = RandomCommands(seed, 25)
    await decided(settings, crowd.commands(3_000))
    async with connected(settings) as database:
        rows = await database.fetch("SELECT * FROM journal ORDER BY position")
    middle = dict.fromkeys(range(settings.kafka.partitions), 0)
    for row in rows[: len(rows) // 2]:
        middle[row["command_partition"]] = max(middle[row["command_partition"]], row["command_offset"])
    latter, found = await rehearse(settings, from_offsets={each: offset + 1 for each, offset in middle.items()})
    assert found == []
    assert 1_000 < latter.records < 2_000
    some = sorted({row["org_id"] for row in rows if row["org_id"] is not None})[:3]
    report, found = await rehearse(settings, org_ids=some)
    assert found == []
    assert report.records > 100
    few = [row["command_id"] for row in rows[::40]]
    report, found = await rehearse(settings, command_ids=few)
    assert found == []
    assert report.records >= len(few)
    # A window of each partition, each of another time: between its commands others were decided.
    windows = {
        partition: (offset // (partition + 2), offset // (partition + 2) + 200) for partition, offset in middle.items()
    }
    report, found = await rehearse(
        settings,
        from_offsets={partition: first for partition, (first, _) in windows.items()},
        to_offsets={partition: last for partition, (_, last) in windows.items()},
    )
    assert found == []
    assert report.records > 500


async def test_a_changed_rule_is_found_and_what_follows_from_it_is_marked(settings: Settings) -> None:
    await decided(settings, [create(1, ORG, "Firm 3"), create(2, OTHER, "Firm 4"), rename(3, ORG, "Firm 5")])
    await decided(settings, [rename(4, ORG, "Firm 6"), rename(5, OTHER, "Firm 3"), rename(6, OTHER, "Firm 7")])
    report, found = await rehearse(settings, decider=no_renames)
    by_command = {str(each.command_id): each for each in found}
    assert {name: (each.recorded, each.rehearsed, each.because) for name, each in by_command.items()} == {
        command_id(3): ("applied 200", "rejected 403 forbidden", "rules"),
        command_id(4): ("applied 200", "rejected 403 forbidden", "follows"),
        command_id(5): ("applied 200", "rejected 409 name-taken", "follows"),
        command_id(6): ("applied 200", "applied 200", "follows"),
    }
    assert by_command[command_id(6)].fields["version"] == (3, 2)
    assert by_command[command_id(3)].fields["event_type"] == ("org.updated", None)
    assert report.because == {"rules": 1, "follows": 3}


async def test_a_changed_rule_is_found_among_thousands(settings: Settings) -> None:
    await decided(settings, RandomCommands(5, 40).commands(3_000))
    before = await checksums(settings)
    report, found = await rehearse(settings, decider=no_renames)
    first = next(each for each in found if each.because == "rules")
    assert first.rehearsed == "rejected 403 forbidden"
    assert report.because["rules"] > 0
    # Whatever differs is of an organization that differed before, or met the rule.
    assert set(report.because) <= {"rules", "follows"}
    assert await checksums(settings) == before


async def test_what_is_parked_is_parked_again_by_the_same_code_and_decided_by_better_code(settings: Settings) -> None:
    def poison(command: Any, organization: Any, *about: Any, **more: Any) -> Any:
        if organization is not None and organization.name == "Poison" and isinstance(command, UpdateOrganization):
            raise ZeroDivisionError
        return decide(command, organization, *about, **more)

    await decided(settings, [create(1, ORG, "Poison"), create(2, OTHER, "Firm")])
    await decided(settings, [rename(3, ORG, "A"), rename(4, ORG, "B"), rename(5, OTHER, "C")], decider=poison)
    _, found = await rehearse(settings, decider=poison)
    assert found == []
    _, found = await rehearse(settings)
    assert [(str(each.command_id), each.recorded, each.rehearsed) for each in found] == [
        (command_id(3), "parked handler_raised", "applied 200"),
        (command_id(4), "parked queued_behind", "applied 200"),
    ]
    end = dict.fromkeys(range(settings.kafka.partitions), 0)
    async with connected(settings) as database:
        (row,) = await database.fetch("SELECT partition, \"offset\" FROM parked WHERE reason = 'queued_behind'")
    # What was parked before the range holds up what comes in it.
    _, found = await rehearse(settings, from_offsets=end | {row["partition"]: row["offset"]})
    assert found == []


async def test_code_that_raises_on_everything_is_shown_and_parks_nothing(settings: Settings) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    await decided(settings, RandomCommands(4, 60).commands(600))
    before = await checksums(settings)
    report, found = await rehearse(settings, decider=broken)
    assert report.kinds["applied 200 -> parked handler_raised"] > 20
    assert {each.org_id for each in found if each.because == "rules"} > {found[0].org_id}
    assert await checksums(settings) == before


async def test_what_a_full_queue_rejected_is_left_out(settings: Settings) -> None:
    def poison(command: Any, organization: Any, *about: Any, **more: Any) -> Any:
        if isinstance(command, UpdateOrganization):
            raise ZeroDivisionError
        return decide(command, organization, *about, **more)

    short = settings.model_copy(update={"worker": settings.worker.model_copy(update={"queued_commands_max": 2})})
    await decided(settings, [create(1, ORG, "Firm"), create(2, OTHER, "Other")])
    await decided(short, [rename(number, ORG, f"Firm {number}") for number in range(3, 7)], decider=poison)
    report, found = await rehearse(settings)
    assert report.left_out == {"rejected because too many of their organization were parked": 2}
    assert [each.rehearsed for each in found] == ["applied 200"] * 2


async def test_what_was_deleted_meanwhile_is_there_as_it_was(settings: Settings) -> None:
    await decided(settings, [create(1, ORG, "Firm"), rename(2, ORG, "Firm A")])
    lasts = {partition: end - 1 for (topic, partition), end in (await ends(settings)).items() if "commands" in topic}
    await decided(settings, [binary(command_id(3), "org.delete", ORG)])
    await decided(settings, [create(4, OTHER, "Firm A")])  # else another partition's may be decided first
    report, found = await rehearse(settings, to_offsets=lasts, from_offsets=dict.fromkeys(lasts, 0))
    assert (found, report.outcomes) == ([], {"applied 200": 2})
    report, found = await rehearse(settings, command_ids=[UUID(command_id(2)), UUID(command_id(4))])
    assert (found, report.outcomes) == ([], {"applied 200": 2})


class Tokens(Signing):
    """Commands with tokens, decided."""

    async def decide_some(self) -> None:
        await execute(self.settings, "INSERT INTO staff VALUES ('staff')")
        await execute(self.settings, "INSERT INTO membership VALUES ('bob', $1, 'support', now(), true)", UUID(ORG))
        await decided(
            self.settings,
            [
                self.signed(create(1, ORG, "Firm"), "staff"),
                self.signed(rename(2, ORG, "Firm A"), "bob"),
                self.signed(rename(3, ORG, "Firm B"), "stranger"),
                self.signed(rename(4, ORG, "Firm C"), "bob", ttl_s=-500),
                self.signed(rename(5, ORG, "Firm D"), "staff"),
            ],
        )


@pytest.fixture
async def tokens(settings: Settings, tmp_path: Path) -> Tokens:
    made = Tokens(settings, tmp_path)
    await made.decide_some()
    return made


POLICY = Path(__file__).parents[3] / "service" / "org_service" / "policy.toml"


async def test_tokens_are_judged_by_the_moment_that_kafka_got_them(tokens: Tokens) -> None:
    report, found = await rehearse(tokens.settings)
    assert found == []
    assert report.outcomes == {"applied 200": 3, "rejected 404": 1, "rejected 401": 1}


async def test_a_policy_is_tried_on_what_was_decided(tokens: Tokens) -> None:
    strict = re.sub(r"(\[roles\.support\]\s+denied = \[)", r'\1"Organization:update", ', POLICY.read_text(), count=1)
    assert strict != POLICY.read_text()
    report, found = await rehearse(tokens.settings, policy=read_policy(strict))
    assert [(str(each.command_id), each.rehearsed, each.because) for each in found] == [
        (command_id(2), "rejected 403 forbidden", "policy"),
        (command_id(5), "applied 200", "follows"),
    ]
    assert report.by_token == 3


async def test_a_membership_that_is_gone_since_is_given_as_the_cause(tokens: Tokens) -> None:
    await execute(tokens.settings, "DELETE FROM membership")
    _, found = await rehearse(tokens.settings)
    assert [(str(each.command_id), each.rehearsed, each.because) for each in found] == [
        (command_id(2), "rejected 404 not-found", "access"),
        (command_id(5), "applied 200", "follows"),
    ]


async def test_a_token_whose_key_is_no_longer_listed_counts_for_whoever_it_was_accepted_for(
    tokens: Tokens, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Issuer.open(tmp_path / "other")
    rotated = tokens.settings.auth.model_copy(update={"jwks_file": str(other.jwks_file)})
    report, found = await rehearse(tokens.settings.model_copy(update={"auth": rotated}))
    assert [each.fields for each in found] == []
    assert report.vouched == 4


async def test_what_retention_has_taken_is_counted(settings: Settings) -> None:
    await decided(settings, [create(1, ORG, "A"), *(rename(each, ORG, f"B{each}") for each in range(2, 12))])
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers)
    await admin.start()
    async with connected(settings) as database:
        partition: Any = await database.fetchval("SELECT command_partition FROM journal LIMIT 1")
    at = TopicPartition(settings.kafka.topics.commands, partition)
    await admin.delete_records({at: RecordsToDelete(before_offset=4)})
    await admin.close()
    report, found = await rehearse(settings, from_offsets={partition: 0})
    assert (found, report.records, report.taken) == ([], 7, 4)
    report, _ = await rehearse(settings, org_ids=[UUID(ORG)])
    assert (report.records, report.taken) == (7, 0)
    with pytest.raises(PreconditionError, match="retention has taken 1"):
        await rehearse(settings, command_ids=[UUID(command_id(2))])


async def test_what_is_not_decided_yet_is_left_out(settings: Settings) -> None:
    await decided(settings, [create(1, ORG, "A")])
    await publish(settings, [rename(2, ORG, "B")])
    report, found = await rehearse(settings)
    assert (found, report.records, report.left_out) == ([], 1, Counter({"without an outcome yet": 1}))


async def test_a_session_that_is_lost_ends_the_rehearsal_and_the_real_tables_stay_as_they_are(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decided(settings, RandomCommands(2, 20).commands(500))
    before = await checksums(settings)
    monkeypatch.setattr(rehearsals, "PATIENCE_S", 0.5)

    async def end_sessions(*_: Any) -> None:
        await execute(
            settings,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'orgs-operate' "
            "AND datname = current_database()",
        )

    with probing("apply.before_transaction", end_sessions), pytest.raises(RetryError, match="rehearsal can't go on"):
        await rehearse(settings)
    assert await checksums(settings) == before


async def test_a_rehearsal_that_is_cancelled_leaves_nothing(settings: Settings) -> None:
    await decided(settings, RandomCommands(3, 20).commands(500))
    before = await checksums(settings)
    reached = asyncio.Event()

    async def wait(*_: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    with probing("apply.before_positions", wait):
        running = asyncio.create_task(Rehearsal(settings, CommandSelection()).run(lambda _: None))
        await asyncio.wait_for(reached.wait(), 20)
        assert await temporary_tables(settings) > 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert await checksums(settings) == before
    await until(lambda: has_none(settings))


async def has_none(settings: Settings) -> bool:
    return await temporary_tables(settings) == 0


async def test_the_command_prints_each_difference_and_exits_with_1(orgs: Orgs, tokens: Tokens, tmp_path: Path) -> None:
    orgs = Orgs(tokens.settings)
    said = await orgs("replay", "commands")
    assert "5 records rehearsed" in said.stderr
    assert "no difference" in said.stderr
    strict = re.sub(r"(\[roles\.support\]\s+denied = \[)", r'\1"Organization:update", ', POLICY.read_text(), count=1)
    (tmp_path / "strict.toml").write_text(strict)
    said = await orgs("replay", "commands", "--policy", str(tmp_path / "strict.toml"), code=1)
    assert f"org.update {command_id(2)} by bob: applied 200 -> rejected 403 forbidden  [policy]" in said.stdout
    *differences, summary = (
        await orgs("replay", "commands", "--policy", str(tmp_path / "strict.toml"), "--json", code=1)
    ).json_lines
    assert [each["command_id"] for each in differences] == [command_id(2), command_id(5)]
    assert differences[0]["fields"]["code"] == {"recorded": 200, "rehearsed": 403}
    assert (summary["differences"], summary["because"]) == (2, {"policy": 1, "follows": 1})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--from-offset", "3"), "must be a partition and an offset"),
        (("--from-offset", "0:1", "--from-offset", "0:2"), "partition 0 has one already"),
        (("--policy", "pyproject.toml", "--execute"), "has no effect"),
        (("--reason", "why"), "are for --plan"),
        (("--from-offset", "0:5", "--to-offset", "0:4"), "--to-offset is before --from-offset"),
        (("--from-time", "2026-11-02", "--to-time", "2026-11-01"), "--to-time is not after --from-time"),
    ],
)
async def test_what_is_written_wrongly_is_said(orgs: Orgs, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    assert said in re.sub(r"[\s│]+", " ", (await orgs("replay", "commands", *options, code=2)).stderr)


async def test_what_is_not_there_is_said(settings: Settings, orgs: Orgs) -> None:
    assert "holds none of these commands" in (await orgs("replay", "commands", code=1)).stderr
    said = await orgs("replay", "commands", "--from-offset", "7:0", code=1)
    assert "has no partition 7: its 3 are numbered from 0" in said.stderr
    said = await orgs("replay", "commands", "--command", command_id(1), code=1)
    assert "nothing is known of the command" in said.stderr
    await decided(settings, [create(1, ORG, "Firm")])
    for selected in (("--org", OTHER), ("--from-time", "2099-01-01")):
        said = await orgs("replay", "commands", *selected, code=1)
        assert "holds none of these commands" in said.stderr
    said = await orgs("replay", "commands", "--policy", str(POLICY))
    assert "the policy made no difference to any" in said.stderr
