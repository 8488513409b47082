"""`orgs verify`: do tables and topics tell the same? And `orgs repair`."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from org_service.cli import operations, shell

if TYPE_CHECKING:
    from org_service.operate.verifying.report import Difference, Report, Verdict
    from org_service.settings import Settings

SHOWN_MAX: Final = 50
"""Differences in a terminal; `--json` has up to a thousand."""
_EXIT_CODES: Final = {"equal": 0, "differs": 1, "inconclusive": 3, "incomplete": 4, "error": 5}


def verify(
    *,
    at: Annotated[
        int | None,
        typer.Option(
            "--at", min=1, help="As of this earlier position: the journal and topics, not tables.", show_default=False
        ),
    ] = None,
    continuous: Annotated[
        bool, typer.Option("--continuous", help="Again and again, ORGS_OPERATE__VERIFY_INTERVAL_S apart, until ^C.")
    ] = False,
    as_json: operations.JsonOption = False,
) -> None:
    """Prove that tables and topics tell the same as of one position, while commands flow.

    Each organization is what its last change left; positions and versions have no gaps; a command has one outcome;
    orgs.events, orgs.results and orgs.state hold what the journal says; memberships, partnerships and staff are what
    their topics say. Changes nothing.

    Exits with 0 equal, 1 differs, 3 inconclusive (an outage, an open transaction, a relay that is behind: try again),
    4 incomplete (all that is there is equal; retention took the rest), 5 error.

    Example: `orgs verify --json`
    """
    from org_service.operate.verifying.verification import Asked

    settings = shell.quiet_settings()
    asked = Asked(at=at)
    if continuous:
        shell.run(_again_and_again(settings, asked, as_json=as_json))
        return
    verdict = shell.run(_verify(settings, asked, as_json=as_json))
    raise typer.Exit(_EXIT_CODES[verdict])


async def _verify(settings: "Settings", asked: Any, *, as_json: bool) -> "Verdict":
    from rich.progress import MofNCompleteColumn

    from org_service.operate.verifying.verification import verify as verify_once

    with shell.make_progress_bar(MofNCompleteColumn()) as progress:
        task = progress.add_task("verifying", total=None, rate="")

        def report(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        found = await verify_once(settings, asked, report)
    _show(found, as_json=as_json)
    return found.verdict


async def _again_and_again(settings: "Settings", asked: Any, *, as_json: bool) -> None:
    while True:
        await _verify(settings, asked, as_json=as_json)
        await asyncio.sleep(settings.operate.verify_interval_s)


def document(found: "Report") -> dict[str, Any]:
    """A report as JSON."""
    return {
        "verdict": found.verdict,
        "position": found.position,
        "comparisons": [
            {"name": each.name, "verdict": each.verdict, "checked": each.checked, "why": each.why or None}
            for each in found.comparisons
        ],
        "counts": dict(found.counts),
        "differences": [each._asdict() | {"remedy": each.remedy} for each in found.differences],
        "notes": found.notes,
        "seconds": round(found.seconds, 3),
        "processor_seconds": round(found.processor_seconds, 3),
    }


def _show(found: "Report", *, as_json: bool) -> None:
    from rich import box
    from rich.table import Table

    from org_service.cli import render
    from org_service.operate import words

    if as_json:
        shell.write_json(document(found))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("compared", "verdict", "checked", ""):
        table.add_column(heading, justify="right" if heading == "checked" else "left")
    for each in found.comparisons:
        table.add_row(each.name, render.word(each.verdict), f"{each.checked:,}", words.printable(each.why))
    shell.out().print(table)
    for each in found.differences[:SHOWN_MAX]:
        shell.out().print(_difference_line(each), markup=False)
    if (more := found.counts.total() - SHOWN_MAX) > 0:
        shell.out().print(f"… and {more:,} more; --json shows up to a thousand")
    for note in found.notes:
        shell.out().print(note, markup=False)
    shell.out().print(
        f"{found.verdict} as of position {found.position:,}, in {found.seconds:.1f} s "
        f"({found.processor_seconds:.1f} s of processor here)"
    )


def _difference_line(each: "Difference") -> str:
    from org_service.operate import words

    what = "" if not each.field else f" {each.field}"
    values = (
        ""
        if each.expected is None and each.found is None
        else f": {words.value(each.expected)} in {each.left}, {words.value(each.found)} in {each.right}"
    )
    at = "" if each.position is None else f" at position {each.position:,}"
    return f"{each.kind}  {each.subject}{at}{what}{values or f': {each.left}, {each.right}'} — {each.remedy}"


def repair(
    *,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Mend what `orgs verify` finds, and touch nothing else.

    A row of a table is written as the journal, or the reference topic, has it. A record that is missing on a topic, or
    wrong, is sent again from the journal: same version, position, ids and bytes. What can't be repaired is listed, with
    the reason. Exits with 1 if there is nothing to mend.

    Prints the plan; --execute does it. At most a thousand items; verify and repair again afterwards.

    Example: `orgs repair --execute --reason "state lost by a full disk"`
    """
    from org_service.operate.verifying.repair import Repair

    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: Repair.make(settings),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )
