"""Changes are taken back through the service; later work stays, whatever happens to the run."""

import asyncio
import re
from typing import Any
from uuid import UUID

import pytest

from org_events.commands import CreateOrganization, DeleteOrganization, UpdateOrganization
from org_events.publishing import OrganizationClient
from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError
from org_service.operate import runs, undo
from org_service.operate.changes import Selection
from org_service.operate.operation import PlanMovedError
from org_service.operate.undo import Undo
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support.database import execute, fetch
from tests.support.killing import run_killed_at
from tests.support.operating import Acting, Orgs
from tests.support.relaying import org

pytestmark = pytest.mark.integration

ORGS = 40


@pytest.fixture
async def renamed(act: Acting) -> None:
    """Organizations that alice made, and that mallory renamed."""
    await act("alice", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(ORGS)])
    await act("mallory", [UpdateOrganization(org_id=org(n), name=f"Wrong {n}") for n in range(ORGS)])


async def planned(settings: Settings, **selection: Any) -> Operation:
    tool = await Undo.make(settings, Selection(**selection))
    operation, _ = await runs.keep_plan(settings, tool, requested_by="bob", reason="a test")
    return operation


async def states(settings: Settings) -> dict[int, tuple[str, str | None, int, bool]]:
    rows = await fetch(settings, "SELECT id, name, domain, version, deleted_at IS NULL AS alive FROM organization")
    numbers = {org(n): n for n in range(2 * ORGS)}
    return {numbers[UUID(str(row["id"]))]: (row["name"], row["domain"], row["version"], row["alive"]) for row in rows}


BACK = {n: (f"Acme {n}", None, 3, True) for n in range(ORGS)}


@pytest.mark.usefixtures("renamed")
async def test_what_somebody_did_is_taken_back_and_the_plan_says_from_what_to_what(
    orgs: Orgs, settings: Settings
) -> None:
    plan = (await orgs("undo", "--by", "mallory", "--json")).json
    assert (plan["items"], plan["facts"]["changes"], plan["facts"]["conflict"]) == (ORGS, ORGS, 0)
    first = plan["sample"][0]
    assert (first["does"], first["changes"]) == ("update", 1)
    number = re.sub(r"\D", "", first["name"])
    assert (first["before"], first["after"]) == (f'name "Wrong {number}"', f'name "Acme {number}"')
    assert (await states(settings))[0] == ("Wrong 0", None, 2, True)
    done = (await orgs("run", plan["id"], "--reason", "the party", "--json")).json
    assert (done["state"], done["counts"]) == ("done", {"undone": ORGS})
    assert await states(settings) == BACK


@pytest.mark.usefixtures("renamed")
async def test_an_undo_is_undone_by_its_run(orgs: Orgs, settings: Settings) -> None:
    first = (await orgs("undo", "--by", "mallory", "--execute", "--reason", "x", "--json")).json
    second = (await orgs("undo", "--run", first["id"], "--execute", "--reason", "no", "--json")).json
    assert second["counts"] == {"undone": ORGS}
    assert await states(settings) == {n: (f"Wrong {n}", None, 4, True) for n in range(ORGS)}
    unknown = await orgs("undo", "--run", str(org(1)), code=1)
    assert f"there is no operation {org(1)}" in unknown.stderr


@pytest.mark.usefixtures("renamed")
async def test_later_work_stays_and_is_listed(orgs: Orgs, settings: Settings, act: Acting) -> None:
    await act(
        "alice", [UpdateOrganization(org_id=org(1), name="Mine"), UpdateOrganization(org_id=org(2), domain="a.no")]
    )
    await act("carol", [DeleteOrganization(org_id=org(3))])
    await act("carol", [CreateOrganization(org_id=org(ORGS + 1), name="acme 4")])
    said = await orgs("undo", "--by", "mallory")
    assert "what can't be undone, and is left as it is: 3" in said.stdout
    assert f"{org(1)} version 2: name changed since, by alice at version 3" in said.stdout
    assert f"{org(3)} version 2: deleted since, by carol at version 3" in said.stdout
    assert f"{org(4)}: its name is taken by {org(ORGS + 1)} meanwhile" in said.stdout
    ran = await orgs("undo", "--by", "mallory", "--execute", "--reason", "x", "--json", code=1)
    assert ran.json["counts"] == {"undone": ORGS - 3}
    now = await states(settings)
    assert (now[1], now[3][:1], now[4][:1]) == (("Mine", None, 3, True), ("Wrong 3",), ("Wrong 4",))
    assert now[2] == ("Acme 2", "a.no", 4, True)


@pytest.mark.usefixtures("renamed")
async def test_what_changed_between_plan_and_run_stops_it(settings: Settings, act: Acting) -> None:
    operation = await planned(settings, actors=("mallory",))
    await act("alice", [UpdateOrganization(org_id=org(1), name="Mine")])
    with pytest.raises(PlanMovedError, match="organizations that changed since: 0 when it was planned, 1 now"):
        await runs.run(settings, operation.id)
    assert (await states(settings))[0] == ("Wrong 0", None, 2, True)


@pytest.mark.usefixtures("renamed")
async def test_what_changes_during_the_run_is_a_conflict_and_stays(settings: Settings, act: Acting) -> None:
    operation = await planned(settings, actors=("mallory",))
    await runs.set_rate(settings, operation.id, 10)
    running = asyncio.create_task(runs.run(settings, operation.id))
    while (await runs.find(settings, operation.id)).done == 0:
        await asyncio.sleep(0.01)
    shown = {each["org_id"] for each in operation.sample}  # these go first
    late = next(n for n in range(ORGS) if str(org(n)) not in shown)
    await act("alice", [UpdateOrganization(org_id=org(late), name="Mine")])
    await runs.set_rate(settings, operation.id, None)
    done = await running
    assert done.counts == {"undone": ORGS - 1, "conflict": 1}
    assert done.progress["failed"][0]["item"] == str(org(late))
    assert (await states(settings))[late] == ("Mine", None, 3, True)


@pytest.mark.usefixtures("renamed")
@pytest.mark.parametrize(
    ("point", "time"),
    [
        ("operate.after_take", 1),
        ("operate.before_publish", 1),
        ("operate.after_publish", 1),
        ("operate.before_publish", 2),
        ("operate.after_publish", 2),
    ],
)
async def test_a_run_that_was_killed_and_resumed_ends_as_if_it_had_not_been(
    settings: Settings, point: Point, time: int
) -> None:
    operation = await planned(settings, actors=("mallory",))
    await runs.set_rate(settings, operation.id, ORGS / 2)  # so that there are two steps
    done = await run_killed_at(settings, operation.id, point, time)
    assert (done.state, done.counts) == (OperationState.DONE, {"undone": ORGS})
    assert await states(settings) == BACK


@pytest.mark.usefixtures("renamed")
async def test_of_two_who_start_one_plan_one_runs_it(settings: Settings) -> None:
    operation = await planned(settings, actors=("mallory",))
    outcomes = await asyncio.gather(*(runs.run(settings, operation.id) for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["NotRunnableError", "Operation"]
    assert await states(settings) == BACK


async def test_names_that_moved_on_go_back_in_the_other_order(settings: Settings, act: Acting) -> None:
    """Each took the name of the one before it, so each gets its own back once the one behind it has moved."""
    chain = 12
    await act("alice", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(chain)])
    for n in range(chain):
        name = "Free" if n == 0 else f"Acme {n - 1}"
        await act("mallory", [UpdateOrganization(org_id=org(n), name=name)])
    operation = await planned(settings, actors=("mallory",))
    done = await runs.run(settings, operation.id)
    assert done.counts == {"undone": chain}
    assert await states(settings) == {n: (f"Acme {n}", None, 3, True) for n in range(chain)}


async def test_who_gives_a_name_up_goes_first_though_the_other_one_changed_last(
    settings: Settings, act: Acting
) -> None:
    pairs = 6
    await act("alice", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(2 * pairs)])
    await act("mallory", [UpdateOrganization(org_id=org(n), name=f"Free {n}") for n in range(pairs)])
    await act("mallory", [UpdateOrganization(org_id=org(n + pairs), name=f"Acme {n}") for n in range(pairs)])
    await act("mallory", [UpdateOrganization(org_id=org(n), domain="x.example") for n in range(pairs)])
    operation = await planned(settings, actors=("mallory",))
    assert (await runs.run(settings, operation.id)).counts == {"undone": 2 * pairs}
    assert {name for name, *_ in (await states(settings)).values()} == {f"Acme {n}" for n in range(2 * pairs)}


async def test_names_that_were_exchanged_are_said_to_need_a_hand(settings: Settings, act: Acting) -> None:
    await act("alice", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(2)])
    await act("mallory", [UpdateOrganization(org_id=org(0), name="Between")])
    await act("mallory", [UpdateOrganization(org_id=org(1), name="Acme 0")])
    await act("mallory", [UpdateOrganization(org_id=org(0), name="Acme 1")])
    tool = await Undo.make(settings, Selection(actors=("mallory",)))
    plan = await tool.plan()
    assert (plan.items, plan.facts["conflict"]) == (0, 2)
    assert any("would get each other's names back" in note for note in plan.notes)


async def test_created_ones_are_deleted_and_deleted_ones_restored(settings: Settings, act: Acting) -> None:
    await act("alice", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(3)])
    await act("mallory", [CreateOrganization(org_id=org(4), name="Junk"), DeleteOrganization(org_id=org(0))])
    await act("mallory", [UpdateOrganization(org_id=org(1), name="Bad"), DeleteOrganization(org_id=org(1))])
    operation = await planned(settings, actors=("mallory",))
    shown = {each["org_id"]: (each["does"], each["before"], each["after"]) for each in operation.sample}
    assert shown[str(org(4))][0] == "delete"
    assert shown[str(org(1))][:2] == ("restore, update", "deleted")
    assert (await runs.run(settings, operation.id)).counts == {"undone": 3}
    now = await states(settings)
    assert (now[0], now[1]) == (("Acme 0", None, 3, True), ("Acme 1", None, 5, True))
    assert now[4][3] is False


async def test_a_created_one_that_others_are_clients_of_cant_be_deleted(settings: Settings, act: Acting) -> None:
    await act("mallory", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(2)])
    await execute(settings, f"INSERT INTO partnership VALUES ('{org(0)}', '{org(1)}', 'admin')")
    tool = await Undo.make(settings, Selection(org_ids=(org(0),)))
    plan = await tool.plan()
    assert (plan.items, plan.facts["conflict"]) == (0, 1)
    assert any(f"is a partner of {org(1)}" in note for note in plan.notes)


@pytest.mark.usefixtures("renamed")
async def test_marks_bound_what_is_taken_back(orgs: Orgs, settings: Settings, act: Acting) -> None:
    await orgs("mark", "before")
    await act("mallory", [UpdateOrganization(org_id=org(0), domain="x.example")])
    await orgs("mark", "after")
    await act("mallory", [UpdateOrganization(org_id=org(1), domain="y.example")])
    plan = (await orgs("undo", "--from-mark", "before", "--to-mark", "after", "--json")).json
    assert [each["org_id"] for each in plan["sample"]] == [str(org(0))]
    refused = await orgs("undo", "--from-mark", "never", code=1)
    assert "there is no mark 'never'" in refused.stderr


async def test_what_a_publisher_sent_is_found_by_its_source(orgs: Orgs, settings: Settings, act: Acting) -> None:
    await act("alice", [CreateOrganization(org_id=org(n), name=f"Acme {n}") for n in range(3)])
    async with OrganizationClient(
        bootstrap_servers=settings.kafka.bootstrap_servers, topics=settings.kafka.topics, source="/crm", actor="alice"
    ) as crm:
        await crm.update(org(1), name="Wrong")
    plan = (await orgs("undo", "--source", "/crm", "--json")).json
    assert [each["org_id"] for each in plan["sample"]] == [str(org(1))]
    refused = await orgs("undo", "--source", "/crm", "--command", str(org(1)), code=1)
    assert "none of these commands was sent by /crm" in refused.stderr
    refused = await orgs("undo", "--source", "/billing", code=1)
    assert "has no commands of /billing since 20" in refused.stderr
    later = await orgs("undo", "--source", "/crm", "--from-time", "2099-01-01", code=1)
    assert "has no commands of /crm" in later.stderr


@pytest.mark.usefixtures("renamed")
async def test_more_than_fits_in_memory_is_undone_in_parts(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound, at in (("ORGANIZATIONS_MAX", ORGS - 1), ("CHANGES_MAX", ORGS - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(undo, bound, at)
            tool = await Undo.make(settings, Selection(actors=("mallory",)))
            with pytest.raises(PreconditionError, match=rf"undo them in parts, the latest first; position {2 * ORGS} "):
                await tool.plan()


async def test_a_deleted_one_whose_last_name_is_taken_is_said_not_to_come_back(settings: Settings, act: Acting) -> None:
    """It would have that name for a moment, between its restore and its update."""
    await act("alice", [CreateOrganization(org_id=org(0), name="Acme")])
    await act("mallory", [UpdateOrganization(org_id=org(0), name="Wrong"), DeleteOrganization(org_id=org(0))])
    await act("carol", [CreateOrganization(org_id=org(1), name="Wrong")])
    tool = await Undo.make(settings, Selection(actors=("mallory",)))
    plan = await tool.plan()
    assert (plan.items, plan.facts["conflict"]) == (0, 1)
    assert any(f"its name is taken by {org(1)} meanwhile" in note for note in plan.notes)
    await act("carol", [UpdateOrganization(org_id=org(1), name="Mine")])
    done = await runs.run(settings, (await planned(settings, actors=("mallory",))).id)
    assert done.counts == {"undone": 1}
    assert (await states(settings))[0] == ("Acme", None, 5, True)


async def test_everything_that_ever_happened_is_not_undone_by_mistake(orgs: Orgs, act: Acting) -> None:
    await orgs("mark", "start")
    await act("alice", [CreateOrganization(org_id=org(0), name="Acme")])
    assert "say which changes" in (await orgs("undo", code=2)).stderr
    assert (await orgs("undo", "--from-mark", "start", "--json")).json["items"] == 1
