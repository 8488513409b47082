"""`orgs import`: a file of organizations becomes commands."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_events.results import Result
    from org_service.operate.organizations_file import BadLine, Row
    from org_service.settings import Settings


class _Tally:
    """The outcome of the lines so far."""

    def __init__(self) -> None:
        self.outcomes: Counter[tuple[str, int, str]] = Counter()
        self.bad_lines = 0

    @property
    def done(self) -> int:
        """Lines with an outcome, or without a hope of one."""
        return self.outcomes.total() + self.bad_lines

    @property
    def all_went_through(self) -> bool:
        """Whether no line was rejected, parked or unreadable."""
        return not self.bad_lines and {outcome for outcome, *_ in self.outcomes} <= {"applied", "unchanged", "fine"}


def import_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, show_default=False)
    ],
    *,
    file_format: Annotated[
        Literal["jsonl", "csv"] | None, typer.Option("--format", help="Taken from the file's name by default.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only read and check the file; send nothing.")] = False,
    actor: Annotated[str | None, typer.Option(help="The actor, where publishers are trusted.")] = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1, max=3600, help="Seconds to wait for each outcome.")
    ] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Create an organization for each line of a file: JSON lines or CSV.

    JSON lines: `{"name": "Acme", "domain": "acme.com", "primary_address": {"line1": …, "city": …, "country": …}}`.
    CSV: a header line with some of id, name, domain, line1, line2, city, region, postal_code, country; in UTF-8,
    comma-separated. An organization without an id gets one that is derived from its name.

    Lines that can't be sent or are rejected are reported with their number and the reason; all others are applied.
    Importing the same file again is harmless: every line gets its first outcome again.

    Exits with 0 if every line was applied, 1 if one was not, 3 if no outcome arrived in time (then run it again).

    Example: `orgs import organizations.jsonl`
    """
    from org_service.operate import organizations_file

    chosen = file_format or organizations_file.format_of(file)
    rows = organizations_file.read(file, chosen)
    tally = _Tally()
    if dry_run:
        _check(rows, tally)
    else:
        settings = shell.quiet_settings()
        lines = None
        if file.is_file():  # what comes through a pipe can be read but once
            with file.open("rb") as content:
                lines = sum(1 for _ in content)
        _run(settings, rows, tally, lines=lines, actor=actor, timeout_s=timeout_s)
    _summarize(tally, as_json)
    if not tally.all_went_through:
        raise typer.Exit(shell.FAILED)


def _check(rows: "Iterable[Row | BadLine]", tally: _Tally) -> None:
    from org_service.operate.organizations_file import BadLine

    for row in rows:
        if isinstance(row, BadLine):
            _report(row.line, f"unreadable  {row.reason}")
            tally.bad_lines += 1
        else:
            tally.outcomes["fine", 0, "not sent"] += 1


def _run(
    settings: "Settings",
    rows: "Iterable[Row | BadLine]",
    tally: _Tally,
    *,
    lines: int | None,
    actor: str | None,
    timeout_s: float,
) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from org_events.publishing.errors import OutcomeUnknown
    from org_service.operate import publish

    columns = (TextColumn("importing"), BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TimeElapsedColumn())

    async def work(progress: Progress) -> None:
        task = progress.add_task("importing", total=lines)

        def on_bad_line(bad: "BadLine") -> None:
            tally.bad_lines += 1
            _report(bad.line, f"unreadable  {bad.reason}")

        async with publish.connect(settings.kafka, timeout_s=timeout_s, **shell.sender(settings, actor)) as client:
            async for row, result in publish.import_rows(client, rows, on_bad_line):
                _count(tally, row, result)
                if tally.done % 100 == 0:
                    progress.update(task, completed=tally.done)
        progress.update(task, completed=tally.done, total=tally.done)

    with Progress(*columns, console=shell.err(), transient=True, disable=not shell.err().is_terminal) as progress:
        try:
            shell.run(work(progress))
        except OutcomeUnknown as unknown:
            progress.stop()
            shell.fail(
                f"after {tally.done} lines no outcome arrived in time ({unknown.command_id}). Nothing is lost: "
                "import the same file again when the service is back; what was done is not done twice.",
                shell.UNKNOWN,
            )
        except KeyboardInterrupt:
            progress.stop()
            shell.say(
                f"stopped after {tally.done} lines; a few more may have been sent. Import the same file again to "
                "continue: what was done is not done twice."
            )
            raise


def _count(tally: _Tally, row: "Row", result: "Result") -> None:
    problem = result.problem
    tally.outcomes[result.outcome.value, result.code, "" if problem is None else problem.title] += 1
    if problem is not None:
        from org_service.cli import render

        _report(row.line, f"{result.outcome.value} {result.code}  {render.problem_line(problem.model_dump())}")


def _report(line: int, what: str) -> None:
    shell.say(f"line {line}: {what}")


def _summarize(tally: _Tally, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"outcome": outcome, "code": code, "title": title, "lines": lines}
        for (outcome, code, title), lines in sorted(tally.outcomes.items())
    ]
    if tally.bad_lines:
        rows.append({"outcome": "unreadable", "code": None, "title": "not sent, see above", "lines": tally.bad_lines})
    if as_json:
        shell.write_json({"lines": tally.done, "outcomes": rows})
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("outcome", "code", "what"):
        table.add_column(heading)
    table.add_column("lines", justify="right")
    for row in rows:
        table.add_row(row["outcome"], str(row["code"] or ""), row["title"], str(row["lines"]))
    table.add_row("all", "", "", str(tally.done), style="bold")
    shell.out().print(table)
