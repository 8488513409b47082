import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from org_service.operate import accounts, publish
from org_service.settings import Settings
from tests.support.idle import wait_until_idle
from tests.support.operating import Orgs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running")]

ROWS = 300


def outcomes(summary: Any) -> dict[tuple[str, int | None], int]:
    return {(row["outcome"], row["code"]): row["lines"] for row in summary["outcomes"]}


async def test_a_second_import_of_the_same_file_changes_nothing(orgs: Orgs, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text(
        "".join(json.dumps({"name": f"Företag {n}", "domain": f"f{n}.example"}) + "\n" for n in range(ROWS))
    )
    first = await orgs("import", str(file), "--json")
    again = await orgs("import", str(file), "--json")
    assert outcomes(first.json) == outcomes(again.json) == {("applied", 200): ROWS}
    await wait_until_idle(settings, 20)
    found = await accounts.check(settings)
    assert found == (ROWS, ROWS, ROWS, 0, [])
    assert (await orgs("show", "företag 7", "--json")).json["version"] == 1


async def test_every_line_that_was_not_imported_is_named(orgs: Orgs, tmp_path: Path) -> None:
    file = tmp_path / "some.csv"
    file.write_text(
        "name,domain,line1,city,country\n"
        "One,one.example,,,\n"
        "Two,not a domain,,,\n"
        "ONE,,,,\n"
        "Three,,Street 1,Oslo,NO\n"
        "Four,,Street 1,Oslo,Norway\n"
        "One,one.example,,,\n"
    )
    answer = await orgs("import", str(file), code=1)
    said = answer.stderr.splitlines()
    assert [line.split(":")[0] for line in said if line.startswith("line ")] == ["line 3", "line 6", "line 4"]
    assert "line 3: unreadable  domain: " in answer.stderr
    assert "line 4: rejected 409  An organization with this id already exists" in answer.stderr
    assert "line 6: unreadable  primary_address.country: " in answer.stderr
    table = [line.split() for line in answer.stdout.splitlines()]
    assert ["applied", "200", "3"] in table
    assert ["all", "6"] in table


async def test_a_dry_run_reads_everything_and_sends_nothing(orgs: Orgs, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "some.jsonl"
    file.write_text('{"name": "One"}\nbroken\n')
    answer = await orgs("import", str(file), "--dry-run", code=1)
    assert "line 2: unreadable  not JSON" in answer.stderr
    assert (await orgs("tail", "commands", "--from-start", "--no-follow")).stdout == ""


async def test_lines_from_a_pipe_are_imported(orgs: Orgs, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writing = asyncio.create_task(asyncio.to_thread(pipe.write_text, '{"name": "One"}\n{"name": "Two"}\n'))
    answer = await orgs("import", str(pipe), "--json")
    await writing
    assert outcomes(answer.json) == {("applied", 200): 2}


async def test_a_stopped_import_says_how_to_continue(
    orgs: Orgs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_rows = publish.import_rows

    async def stopped_by_ctrl_c(*arguments: Any) -> AsyncIterator[publish.Imported]:
        async for imported in import_rows(*arguments):
            yield imported
            raise KeyboardInterrupt

    monkeypatch.setattr(publish, "import_rows", stopped_by_ctrl_c)
    file = tmp_path / "two.jsonl"
    file.write_text('{"name": "One"}\n{"name": "Two"}\n')
    answer = await orgs("import", str(file), code=130)
    assert answer.stdout == ""
    assert (
        "stopped after 1 lines; a few more may have been sent. Import the same file again to continue" in answer.stderr
    )
