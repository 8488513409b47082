"""Organizations become what a file says; what the plan saw guards each, whatever happens to the run."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from org_service.domain.reasons import OperationState
from org_service.errors import PreconditionError
from org_service.operate import apply_file, runs
from org_service.operate.apply_file import ApplyFile
from org_service.operate.export import open_snapshot
from org_service.operate.operation import PlanMovedError
from org_service.probes import Point
from org_service.settings import Settings
from org_service.store.operations import Operation
from tests.support.database import execute, fetch
from tests.support.killing import run_killed_at
from tests.support.operating import Orgs
from tests.support.relaying import org

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running")]

LINES = 60
PERSIAN = "\u0646\u0627\u0645\u0647\u200c\u0647\u0627"
"""Written with a joiner, as is right."""
ADDRESS = {"line1": "Street 1", "city": "Oslo", "country": "NO"}


def write(file: Path, lines: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def content_of(file: Path) -> str:
    return file.read_text()


def put(file: Path, content: str) -> None:
    file.write_text(content)


def remove(file: Path) -> None:
    file.unlink()


def left_behind(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def line(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": str(org(number)), "name": f"Acme {number}"} | fields


async def apply(orgs: Orgs, file: Path, code: int = 0) -> Any:
    return (await orgs("apply", str(file), "--execute", "--reason", "a test", "--json", code=code)).json


async def planned(settings: Settings, file: Path) -> Operation:
    tool = await ApplyFile.make(settings, file, "jsonl")
    operation, _ = await runs.keep_plan(settings, tool, requested_by="bob", reason="a test")
    return operation


async def states(settings: Settings) -> dict[str, tuple[str, str | None, int]]:
    rows = await fetch(settings, "SELECT id, name, domain, version FROM organization WHERE deleted_at IS NULL")
    return {str(row["id"]): (row["name"], row["domain"], row["version"]) for row in rows}


def verdicts(facts: dict[str, Any]) -> dict[str, int]:
    names = ("create", "update", "unchanged", "conflict", "invalid")
    return {name: facts[name] for name in names if facts[name]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """New organizations."""
    return write(tmp_path / "organizations.jsonl", [line(n, domain=f"d{n}.example") for n in range(LINES)])


async def test_a_plan_says_what_each_line_comes_to_and_a_run_does_that(
    orgs: Orgs, settings: Settings, file: Path
) -> None:
    plan = (await orgs("apply", str(file), "--json")).json
    assert (plan["items"], verdicts(plan["facts"])) == (LINES, {"create": LINES})
    assert await states(settings) == {}
    done = await apply(orgs, file)
    assert (done["state"], done["counts"]) == ("done", {"created": LINES})
    write(file, [line(0, domain="other.example"), line(1, domain=None), line(2), line(3, primary_address=ADDRESS)])
    plan = (await orgs("apply", str(file), "--json")).json
    assert verdicts(plan["facts"]) == {"update": 3, "unchanged": 1}
    shown = [(each["line"], each["does"], each["before"], each["after"]) for each in plan["sample"]]
    assert shown[:2] == [
        (1, "update", 'domain "d0.example"', 'domain "other.example"'),
        (2, "update", 'domain "d1.example"', "domain null"),
    ]
    assert (await apply(orgs, file))["counts"] == {"updated": 3}
    now = await states(settings)
    assert now[str(org(0))] == ("Acme 0", "other.example", 2)
    assert now[str(org(2))] == ("Acme 2", "d2.example", 1)
    assert verdicts((await orgs("apply", str(file), "--json")).json["facts"]) == {"unchanged": 4}


async def test_of_csv_an_empty_cell_clears_and_a_missing_column_leaves(
    orgs: Orgs, settings: Settings, tmp_path: Path
) -> None:
    await apply(orgs, write(tmp_path / "a.jsonl", [line(n, domain=f"d{n}.example") for n in range(2)]))
    csv = tmp_path / "b.csv"
    put(csv, f"id,name\n{org(0)},Renamed\n")
    assert (await apply(orgs, csv))["counts"] == {"updated": 1}
    put(csv, f"id,name,domain\n{org(1)},Acme 1,\n")
    assert (await apply(orgs, csv))["counts"] == {"updated": 1}
    now = await states(settings)
    assert (now[str(org(0))], now[str(org(1))]) == (("Renamed", "d0.example", 2), ("Acme 1", None, 2))


async def test_lines_that_cant_be_applied_are_listed_and_left_out(orgs: Orgs, settings: Settings, file: Path) -> None:
    await apply(orgs, write(file, [line(n) for n in range(4)]))
    await orgs("send", "delete", str(org(1)))
    await orgs("send", "deactivate", str(org(2)))
    lines = [
        line(1),
        line(2, domain="x.example"),
        line(7, name="ACME 3"),
        line(8, name="Twice"),
        line(9, name="twice"),
        line(8),
        line(10, domain="not a domain"),
        line(11),
    ]
    said = await orgs("apply", str(write(file, lines)))
    for expected in (
        f"line 1: conflict: it is deleted: `orgs send restore {org(1)}` brings it back",
        "line 2: conflict: it is deactivated",
        f"line 3: conflict: its name is taken by {org(3)}",
        "line 5: conflict: line 4 takes the same name",
        "line 6: conflict: line 4 is about the same organization",
        "line 7: invalid: domain: ",
    ):
        assert expected in said.stdout
    done = await apply(orgs, file, code=1)
    assert (done["state"], done["counts"]) == ("done", {"created": 2})


async def test_a_file_with_ids_of_elsewhere_is_not_planned_line_by_line(
    orgs: Orgs, settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await apply(orgs, file)
    monkeypatch.setattr(apply_file, "SKIPPED_MAX", LINES - 1)
    elsewhere = write(file, [line(n + LINES, name=f"Acme {n}") for n in range(LINES)])
    refused = await orgs("apply", str(elsewhere), code=1)
    assert f"more than {LINES - 1} lines name organizations that have other ids here" in refused.stderr


async def test_names_are_handed_on_in_the_order_of_the_file(orgs: Orgs, settings: Settings, file: Path) -> None:
    chain = 12
    await apply(orgs, write(file, [line(n) for n in range(chain)]))
    handed_on = [line(n, name="Free" if n == 0 else f"Acme {n - 1}") for n in range(chain)]
    assert (await apply(orgs, write(file, handed_on)))["counts"] == {"updated": chain}
    backwards = [line(n, name="Free" if n == 11 else f"Acme {n + 20}") for n in range(chain)]
    plan = (await orgs("apply", str(write(file, backwards[::-1])), "--json")).json
    assert verdicts(plan["facts"]) == {"update": chain - 1, "conflict": 1}


async def test_what_changed_between_plan_and_run_stops_it(orgs: Orgs, settings: Settings, file: Path) -> None:
    await apply(orgs, file)
    operation = await planned(settings, write(file, [line(n, domain="new.example") for n in range(LINES)]))
    await orgs("send", "update", str(org(1)), "--name", "Mine")
    with pytest.raises(PlanMovedError, match="organizations that changed since: 0 when it was planned, 1 now"):
        await runs.run(settings, operation.id)
    assert (await states(settings))[str(org(0))] == ("Acme 0", "d0.example", 1)


async def test_what_changes_during_the_run_is_a_conflict_and_stays(orgs: Orgs, settings: Settings, file: Path) -> None:
    await apply(orgs, file)
    operation = await planned(settings, write(file, [line(n, domain="new.example") for n in range(LINES)]))
    await runs.set_rate(settings, operation.id, 10)
    running = asyncio.create_task(runs.run(settings, operation.id))
    while (await runs.find(settings, operation.id)).done == 0:
        await asyncio.sleep(0.01)
    await orgs("send", "update", str(org(LINES - 1)), "--name", "Mine")
    write(file, [line(n, domain="other.example") for n in range(LINES)])  # the run has a copy of the file
    await runs.set_rate(settings, operation.id, None)
    done = await running
    assert done.counts == {"updated": LINES - 1, "conflict": 1}
    assert done.progress["failed"][0]["item"] == f"line {LINES}"
    assert (await states(settings))[str(org(LINES - 1))] == ("Mine", f"d{LINES - 1}.example", 2)


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
    orgs: Orgs, settings: Settings, file: Path, point: Point, time: int
) -> None:
    half = LINES // 2
    await apply(orgs, write(file, [line(n) for n in range(half)]))
    operation = await planned(settings, write(file, [line(n, domain=f"d{n}.example") for n in range(LINES)]))
    await runs.set_rate(settings, operation.id, half)  # so that there are two steps
    done = await run_killed_at(settings, operation.id, point, time)
    assert (done.state, done.counts) == (OperationState.DONE, {"updated": half, "created": half})
    expected = {str(org(n)): (f"Acme {n}", f"d{n}.example", 2 if n < half else 1) for n in range(LINES)}
    assert await states(settings) == expected


async def test_of_two_who_start_one_plan_one_runs_it(settings: Settings, file: Path) -> None:
    operation = await planned(settings, file)
    outcomes = await asyncio.gather(*(runs.run(settings, operation.id) for _ in range(2)), return_exceptions=True)
    assert sorted(type(each).__name__ for each in outcomes) == ["NotRunnableError", "Operation"]
    assert {version for *_, version in (await states(settings)).values()} == {1}


async def test_a_file_that_changed_since_the_plan_stops_the_run_also_when_it_is_resumed(
    orgs: Orgs, settings: Settings, file: Path
) -> None:
    content = content_of(file)
    operation = await planned(settings, file)
    write(file, [line(1)])
    with pytest.raises(PreconditionError, match="is another file than was planned"):
        await runs.run(settings, operation.id)
    put(file, content)
    await runs.set_rate(settings, operation.id, 10)
    running = asyncio.create_task(runs.run(settings, operation.id))
    while (await runs.find(settings, operation.id)).done == 0:
        await asyncio.sleep(0.01)
    await orgs("runs", "pause", str(operation.id))
    assert (await running).state == OperationState.PAUSED
    write(file, [line(1)])
    refused = await orgs("runs", "resume", str(operation.id), code=1)
    assert "is another file than was planned" in refused.stderr
    remove(file)
    refused = await orgs("runs", "resume", str(operation.id), code=1)
    assert f"{file} can't be read here (No such file or directory): it was planned on " in refused.stderr
    assert (await runs.find(settings, operation.id)).state == OperationState.PAUSED
    put(file, content)
    await runs.set_rate(settings, operation.id, None)
    assert (await runs.run(settings, operation.id)).counts == {"created": LINES}


async def test_a_plan_with_a_file_of_this_machine_is_not_left_to_others(
    orgs: Orgs, settings: Settings, file: Path
) -> None:
    operation = await planned(settings, file)
    refused = await orgs("run", str(operation.id), "--detach", code=1)
    assert "it works with a file of one machine" in refused.stderr
    assert (await runs.find(settings, operation.id)).detached is False


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
async def test_what_is_exported_and_applied_again_is_unchanged_line_by_line(
    orgs: Orgs, tmp_path: Path, name: str
) -> None:
    odd = [
        line(1, name='Ett "bra", företag; AS', domain="xn--bcher-kva.example"),
        line(2, name="=1+1", primary_address={**ADDRESS, "line2": "c/o A, B", "postal_code": "0154"}),
        line(3, name="sep=;"),
        line(4, name=PERSIAN, primary_address=ADDRESS),
        line(5, name="'; DROP TABLE organization --"),
    ]
    await apply(orgs, write(tmp_path / "odd.jsonl", odd))
    await orgs("send", "deactivate", str(org(5)))
    await orgs("send", "create", "--id", str(org(6)), "--name", "Gone")
    await orgs("send", "delete", str(org(6)))
    out = tmp_path / name
    said = await orgs("export", str(out))
    assert f"5 organizations as of position 8 to {out}" in said.stderr
    plan = (await orgs("apply", str(out), "--json")).json
    assert verdicts(plan["facts"]) == {"unchanged": 5}
    again = await orgs("export", str(out), code=2)
    assert "exists already" in again.stderr
    to_stdout = await orgs("export", "--format", out.suffix[1:])
    assert to_stdout.stdout == content_of(out)
    # Where two export to one file, each has its own until the end; and nothing takes the place of a device.
    anothers = out.with_name(f".{name}.part")
    anothers.symlink_to("/dev/full")
    await orgs("export", "--force", str(out))
    anothers.unlink()
    assert content_of(out) == to_stdout.stdout
    device = tmp_path / f"device{out.suffix}"
    device.symlink_to("/dev/null")
    await orgs("export", str(device))
    assert (content_of(device), device.is_symlink()) == ("", True)
    device.unlink()
    assert left_behind(tmp_path) == []


async def test_an_export_is_of_one_moment_whatever_is_changed_meanwhile(orgs: Orgs, settings: Settings) -> None:
    await orgs("send", "create", "--id", str(org(1)), "--name", "Before")
    async with open_snapshot(settings) as snapshot:
        await execute(settings, "UPDATE organization SET name = 'After', name_key = 'after'")
        found = [each.name async for page in snapshot.pages for each in page]
    assert (snapshot.position, found) == (1, ["Before"])
