"""Import: apply that creates only, at once."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from org_service.settings import Settings
from tests.support.idle import wait_until_idle
from tests.support.operating import Orgs
from tests.support.verified import find_differences

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running")]

ROWS = 300


def write(file: Path, lines: list[dict[str, Any]]) -> str:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(file)


async def test_a_second_import_of_the_same_file_changes_nothing(orgs: Orgs, settings: Settings, tmp_path: Path) -> None:
    file = write(tmp_path / "many.jsonl", [{"name": f"Företag {n}", "domain": f"f{n}.example"} for n in range(ROWS)])
    first = (await orgs("import", file, "--json")).json
    again = (await orgs("import", file, "--json")).json
    assert (first["state"], first["counts"], first["reason"]) == ("done", {"created": ROWS}, "import of many.jsonl")
    assert (again["state"], again["counts"], again["facts"]["unchanged"]) == ("done", {}, ROWS)
    await wait_until_idle(settings, 20)
    assert await find_differences(settings) == []
    assert (await orgs("show", "företag 7", "--json")).json["version"] == 1


async def test_what_exists_already_stays_as_it_is(orgs: Orgs, tmp_path: Path) -> None:
    file = tmp_path / "one.jsonl"
    await orgs("import", write(file, [{"name": "One", "domain": "one.example"}]))
    answer = await orgs("import", write(file, [{"name": "One", "domain": "two.example"}]), code=1)
    assert "line 1: conflict: an organization with this id exists already, with another domain" in answer.stdout
    assert (await orgs("show", "one", "--json")).json["domain"] == "one.example"


async def test_every_line_that_did_not_go_through_is_named(orgs: Orgs, tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text(
        "name,domain,line1,city,country\n"
        "One,one.example,,,\n"
        "Two,not a domain,,,\n"
        "ONE,,,,\n"
        "Three,,Street 1,Oslo,NO\n"
        "Four,,Street 1,Oslo,Norway\n"
    )
    answer = await orgs("import", str(file), code=1)
    assert "can't be applied, and are left out: 3" in answer.stdout
    assert "line 3: invalid: domain: " in answer.stdout
    assert "line 4: conflict: line 2 is about the same organization" in answer.stdout
    assert "line 6: invalid: primary_address.country: " in answer.stdout
    assert "2 created" in answer.stdout


async def test_a_dry_run_reads_everything_and_sends_nothing(orgs: Orgs, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"name": "One"}\nbroken\n')
    answer = await orgs("import", str(file), "--dry-run")
    assert "line 2: invalid: not JSON" in answer.stdout
    assert "nothing was changed" in answer.stderr
    assert (await orgs("tail", "commands", "--from-start", "--no-follow")).stdout == ""


async def test_what_comes_through_a_pipe_is_imported(orgs: Orgs, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writing = asyncio.create_task(asyncio.to_thread(pipe.write_text, '{"name": "One"}\n{"name": "Two"}\n'))
    answer = await orgs("import", str(pipe), "--json")
    await writing
    assert answer.json["counts"] == {"created": 2}
    see_private(Path(answer.stderr.split("its content is kept in ")[1].split()[0]))


def see_private(kept: Path) -> None:
    assert kept.stat().st_mode & 0o077 == 0
    kept.unlink()
