"""What a verification says where the journal itself is wrong, or not all there, and what others wrote."""

import json
from uuid import UUID, uuid4

import pytest

from org_service.errors import PreconditionError
from org_service.operate import runs
from org_service.operate.verifying.repair import Repair
from org_service.operate.verifying.report import Comparison, Kind, Report, Verdict
from org_service.operate.verifying.verification import Asked, verify
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.tables import COMMAND_ID_CONSTRAINT
from tests.support import log_faults
from tests.support.database import execute, restore_older_backup
from tests.support.idle import wait_until_idle
from tests.support.killing import run_killed_at
from tests.support.operating import ORG, Orgs, Service
from tests.support.verifying import LIVING, kinds, look, pick, record_of, records, repair, send, tables

pytestmark = pytest.mark.integration

LAST_UPDATES = (
    "SELECT j.position, j.org_id, j.version FROM journal AS j JOIN organization AS o ON o.id = j.org_id "
    "AND o.version = j.version WHERE j.event_type = 'org.updated' AND j.version > 2 "
    "ORDER BY j.position LIMIT 1 OFFSET {}"
)
DECISIONS = "SELECT position, command_id FROM journal WHERE outcome = 'unchanged' ORDER BY position OFFSET {} LIMIT 1"
POINTS: tuple[Point, ...] = ("operate.before_commit", "operate.after_commit")


def by_mallory(event: bytes) -> bytes:
    return json.dumps(json.loads(event) | {"actor": "mallory"}, separators=(",", ":")).encode()


async def test_no_row_or_state_is_repaired_from_a_journal_that_lacks_rows(settings: Settings, history: Service) -> None:
    await history.stop()
    last, other = await pick(settings, LAST_UPDATES.format(0)), await pick(settings, LAST_UPDATES.format(1))
    await execute(settings, f"DELETE FROM journal WHERE position = {last['position']}")
    await execute(settings, "DELETE FROM membership WHERE user_id = 'bob'")
    await execute(settings, f"UPDATE organization SET domain = 'planted.example' WHERE id = '{other['org_id']}'")
    rows, published = await tables(settings), await records(settings)
    report = await look(settings)
    assert {(each.subject, each.kind) for each in report.differences} >= {
        (str(last["org_id"]), Kind.ORGANIZATION_DIFFERS),
        (str(last["org_id"]), Kind.STATE_DIFFERS),
        (str(other["org_id"]), Kind.ORGANIZATION_DIFFERS),
    }
    tool = await Repair.make(settings)
    planned, plan = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    assert any("the journal lacks rows" in note for note in plan.notes), plan.notes
    assert (await runs.run(settings, planned.id)).counts == {"repaired": 1}, "the membership, of which a topic says it"
    assert (await tables(settings))[0] == rows[0]
    assert await records(settings) == published


def comparison(report: Report, name: str) -> Comparison:
    return next(each for each in report.comparisons if each.name == name)


@pytest.mark.usefixtures("history")
async def test_versions_that_do_not_follow_each_other_are_named_with_their_position(settings: Settings) -> None:
    gap, broken = await pick(settings, LAST_UPDATES.format(0)), await pick(settings, LAST_UPDATES.format(1))
    await execute(settings, f"UPDATE journal SET version = version + 5 WHERE position = {gap['position']}")
    renamed = 'replace(before, \'"name":"\', \'"name":"X\')'
    await execute(settings, f"UPDATE journal SET before = {renamed} WHERE position = {broken['position']}")
    report = await look(settings)
    assert report.verdict is Verdict.DIFFERS
    named = {
        (each.subject, each.position, each.field, each.expected, each.found)
        for each in report.differences
        if each.kind is Kind.JOURNAL_VERSIONS
    }
    assert named == {
        (str(gap["org_id"]), gap["position"], "version", gap["version"], gap["version"] + 5),
        (str(broken["org_id"]), broken["position"], "before", "what the change before left", None),
    }
    assert {Kind.ORGANIZATION_DIFFERS, Kind.STATE_DIFFERS} <= kinds(report), "the table and the topic are right"
    rows, published = await tables(settings), await records(settings)
    with pytest.raises(PreconditionError) as refused:
        await Repair.make(settings)
    assert "journal_versions" in str(refused.value)
    assert f"{gap['org_id']} at position {gap['position']}: the journal's rows of it are in doubt" in str(refused.value)
    assert (await tables(settings), await records(settings)) == (rows, published)


@pytest.mark.usefixtures("history")
async def test_two_outcomes_of_one_command_are_named_with_both_positions(settings: Settings) -> None:
    first, second = await pick(settings, DECISIONS.format(0)), await pick(settings, DECISIONS.format(1))
    await execute(settings, f"ALTER TABLE journal DROP CONSTRAINT {COMMAND_ID_CONSTRAINT}")
    assert (await look(settings)).verdict is Verdict.EQUAL, "without the index, each command is looked at"
    await execute(
        settings, f"UPDATE journal SET command_id = '{first['command_id']}' WHERE position = {second['position']}"
    )
    report = await look(settings)
    assert comparison(report, "one outcome a command").verdict is Verdict.DIFFERS
    (twice,) = [each for each in report.differences if each.kind is Kind.TWO_OUTCOMES]
    assert (twice.field, twice.expected, twice.found) == (
        f"command {first['command_id']}",
        first["position"],
        second["position"],
    )


async def test_what_retention_took_is_incomplete_and_the_rest_is_still_compared(
    settings: Settings, history: Service
) -> None:
    names, servers = settings.kafka.topics, settings.kafka.bootstrap_servers
    for topic in (names.events, names.results):
        ends = log_faults.ends(servers, topic, range(settings.kafka.partitions))
        log_faults.delete_records(servers, topic, {at: end // 2 for at, end in ends.items()})
    report = await look(settings)
    assert (report.verdict, report.differences) == (Verdict.INCOMPLETE, [])
    for topic in (names.events, names.results):
        told = comparison(report, f"{topic} = journal")
        assert told.verdict is Verdict.INCOMPLETE
        assert told.why.startswith("retention took positions up to ")
        assert 0 < told.checked < report.position
    assert comparison(report, "organizations = journal").verdict is Verdict.EQUAL
    with pytest.raises(PreconditionError, match="nothing that `orgs repair` can mend differs"):
        await Repair.make(settings)

    await history.stop()
    last = await pick(settings, "SELECT position, org_id FROM journal WHERE event_type IS NOT NULL ORDER BY 1 DESC")
    event = await record_of(settings, names.events, last["position"])
    await send(settings, names.events, str(last["org_id"]), by_mallory(event.value()), event.headers())
    report = await look(settings)
    assert report.verdict is Verdict.DIFFERS
    assert {(each.kind, each.position) for each in report.differences} == {(Kind.EVENT_DIFFERS, last["position"])}


async def test_what_a_journal_advance_gave_up_is_incomplete(orgs: Orgs, service: Service, settings: Settings) -> None:
    service.start("worker", "relay")
    await orgs("send", "create", "--id", ORG, "--name", "Acme")
    await orgs("send", "create", "--name", "Other")
    for name in ("Acme 2", "Acme 3", "Acme 4"):
        await orgs("send", "update", ORG, "--name", name)
    await wait_until_idle(settings, 30)
    await service.stop()
    before = await pick(settings, "SELECT before FROM journal WHERE position = 4")
    said = json.loads(before["before"])
    await restore_older_backup(settings, 3)
    await execute(
        settings,
        f"INSERT INTO organization SELECT '{ORG}', '{said['name']}', lower('{said['name']}'), NULL, NULL, "
        f"'{said['created_at']}', '{said['updated_at']}', NULL, NULL, 2",
    )
    await orgs("journal", "advance", "--execute", "--reason", "restored", "--json")
    report = await look(settings)
    assert comparison(report, "positions of the journal").verdict is Verdict.INCOMPLETE
    assert comparison(report, "positions of the journal").why.startswith("2 positions were given up")
    assert comparison(report, "organizations = journal").verdict is Verdict.EQUAL
    assert kinds(report) == {Kind.STATE_DIFFERS}, "the topic has what was given up"

    service.start("worker", "relay")
    await orgs("send", "update", ORG, "--name", "Acme 5")
    await wait_until_idle(settings, 30)
    report = await look(settings)
    assert (report.verdict, report.differences) == (Verdict.INCOMPLETE, []), report.comparisons
    assert sum("an operator gave them up" in note for note in report.notes) == 2
    earlier = await verify(settings, Asked(at=3, processes=0))
    assert earlier.verdict is Verdict.EQUAL


async def write_row(settings: Settings) -> UUID:
    org_id = uuid4()
    await execute(
        settings,
        f"INSERT INTO organization SELECT '{org_id}', 'Planted', 'planted', NULL, NULL, now(), now(), NULL, NULL, 1",
    )
    return org_id


@pytest.mark.usefixtures("history")
async def test_what_others_wrote_is_told_from_what_is_ours(settings: Settings) -> None:
    names, unknown, row = settings.kafka.topics, uuid4(), await write_row(settings)
    change = await pick(settings, LAST_UPDATES.format(0))
    event = await record_of(settings, names.events, change["position"])
    await send(settings, names.events, str(change["org_id"]), by_mallory(event.value()), event.headers())
    await send(settings, names.state, str(unknown), b"{}", [("ce_orgversion", b"1"), ("ce_position", b"1")])
    await send(settings, names.state, "no id", b"{}")
    await send(settings, names.results, str(unknown), json.dumps({"command_id": "x" * 36, "position": 7}).encode())
    before = await records(settings)
    report = await look(settings)
    assert {(each.kind, each.subject, each.field) for each in report.differences} == {
        (Kind.ORGANIZATION_UNKNOWN, str(row), ""),
        (Kind.EVENT_DIFFERS, str(change["org_id"]), "actor"),
        (Kind.STATE_FOREIGN, str(unknown), ""),
        (Kind.STATE_FOREIGN, "no id", ""),
        (Kind.RESULT_FOREIGN, str(unknown), ""),
    }
    tool = await Repair.make(settings)
    planned, plan = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    assert plan.items == 1
    assert any("organization_unknown" in note for note in plan.notes), plan.notes
    assert (await runs.run(settings, planned.id)).counts == {"repaired": 1}
    now = await records(settings)
    report = await look(settings)
    assert kinds(report) == {Kind.ORGANIZATION_UNKNOWN, Kind.STATE_FOREIGN, Kind.RESULT_FOREIGN}
    assert {topic: len(each) - len(before[topic]) for topic, each in now.items()} == {
        names.events: 1,
        names.results: 0,
        names.state: 0,
    }


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("point", POINTS)
async def test_a_repair_of_tables_that_was_killed_goes_on_where_it_was(settings: Settings, point: Point) -> None:
    rows = await tables(settings)
    changed, lost = await pick(settings, LIVING.format(0)), await pick(settings, LIVING.format(1))
    await execute(settings, f"UPDATE organization SET domain = 'planted.example' WHERE id = '{changed['id']}'")
    await execute(settings, f"DELETE FROM organization WHERE id = '{lost['id']}'")
    await execute(settings, "DELETE FROM membership WHERE user_id = 'bob'")
    damaged = await tables(settings)
    tool = await Repair.make(settings)
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    ran = await run_killed_at(settings, planned.id, point, 1)
    assert (ran.state, ran.counts) == ("done", {"repaired": 3})
    assert damaged != rows
    assert await tables(settings) == rows
    assert (await look(settings)).verdict is Verdict.EQUAL


@pytest.mark.usefixtures("history")
async def test_a_repair_that_comes_too_late_leaves_alone_what_is_right_again(settings: Settings) -> None:
    changed = await pick(settings, LIVING.format(0))
    domain = (await pick(settings, f"SELECT domain FROM organization WHERE id = '{changed['id']}'"))["domain"]
    await execute(settings, f"UPDATE organization SET domain = 'planted.example' WHERE id = '{changed['id']}'")
    tool = await Repair.make(settings)
    planned, _ = await runs.keep_plan(settings, tool, requested_by="alice", reason="a test")
    back = "NULL" if domain is None else f"'{domain}'"
    await execute(settings, f"UPDATE organization SET domain = {back} WHERE id = '{changed['id']}'")
    assert (await runs.run(settings, planned.id)).counts == {"as it must be": 1}
    with pytest.raises(PreconditionError, match="nothing that `orgs repair` can mend differs"):
        await repair(settings)
