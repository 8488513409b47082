"""What every changing command shares: its plan, and how a run looks (`orgs run`, `orgs runs`, `orgs approve`).

A command plans, and does nothing; `--execute`, or `orgs run ID` later, does exactly that plan or stops.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from rich.progress import Progress

    from org_service.domain.reasons import OperationState
    from org_service.operate.operation import Execution, Plan, Tool
    from org_service.settings import Settings
    from org_service.store.operations import Operation

WATCH_INTERVAL_S: Final = 0.5
PLAIN_INTERVAL_S: Final = 5.0
"""Between lines of progress where there is no terminal."""
LOOKS_A_LINE: Final = int(PLAIN_INTERVAL_S / WATCH_INTERVAL_S)

LOOK_TIMEOUT_S: Final = 3.0
"""For a look at a run that ^C interrupted."""

ExecuteOption = Annotated[bool, typer.Option("--execute", help="Run the plan at once.")]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="Leave the run to a process of `orgs serve --role operate`.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept with the run. Needed to run.")]
RateOption = Annotated[
    float | None,
    typer.Option("--rate-per-second-max", min=0.1, max=1e9, help="Items a second, at most.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
ActorOption = Annotated[str | None, typer.Option("--actor", help="Who asks; the login by default.")]
IdArgument = Annotated[UUID, typer.Argument(metavar="ID", help="Of the operation.", show_default=False)]

app = typer.Typer(help="Operations: what was planned and run, by whom and why.", invoke_without_command=True)


def offer(
    settings: "Settings",
    make: Callable[[], Awaitable["Tool"]],
    *,
    execute: bool,
    detach: bool,
    reason: str,
    rate_per_second_max: float | None,
    actor: str | None,
    as_json: bool,
) -> None:
    """Plan, print the plan, and run it if that is wanted.

    Raises:
        typer.Exit: It ran and did not end well.
    """
    from org_service.operate import runs

    async def plan() -> "tuple[Operation, Plan]":
        return await runs.keep_plan(
            settings,
            await make(),
            requested_by=actor or shell.login(),
            reason=reason,
            rate_per_second_max=rate_per_second_max,
        )

    operation, planned = shell.run(plan())
    goes_on = execute or detach
    if not (as_json and goes_on):
        # The sample as the tool made it: JSON of the database has its names in another order.
        shown = operation._replace(sample=planned.sample)
        _show_plan(settings, shown, as_json=as_json, goes_on=goes_on)
    if goes_on:
        _begin(settings, operation.id, reason, detach=detach, as_json=as_json)


def run_operation(
    operation_id: IdArgument,
    *,
    reason: ReasonOption = "",
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a plan, or resume a run that was paused or left behind: exactly what was planned, or nothing.

    ^C pauses it after the step in flight. Exits with 0 when it is done, 1 when it stopped or was paused.

    Example: `orgs run 0190c5f0-7d1c-7b7e-9d57-000000000001 --reason "events lost by billing"`
    """
    _begin(shell.quiet_settings(), operation_id, reason, detach=detach, as_json=as_json)


def approve(operation_id: IdArgument, *, actor: ActorOption = None, as_json: JsonOption = False) -> None:
    """Approve a plan, as a second person: plans of more than ORGS_OPERATE__APPROVAL_ABOVE items need it.

    Example: `orgs approve 0190c5f0-7d1c-7b7e-9d57-000000000001`
    """
    from org_service.operate import runs

    settings = shell.quiet_settings()
    _show(shell.run(runs.approve(settings, operation_id, actor or shell.login())), as_json=as_json)


@app.callback()
def group(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List operations, latest first, where nothing else is asked for."""
    if context.invoked_subcommand is None:
        list_operations(as_json=as_json)


@app.command("list")
def list_operations(
    *,
    last: Annotated[int, typer.Option("--max", "-n", min=1, max=10_000, help="Show at most this many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List operations, latest first.

    Example: `orgs runs list`
    """
    from org_service.cli import render
    from org_service.operate import runs

    found = shell.run(runs.list_latest(shell.quiet_settings(), last))
    for operation in found:
        if as_json:
            shell.write_json(render.operation_document(operation))
        else:
            shell.out().print(render.operation_line(operation))
    if not found:
        shell.say("no operation was planned yet")


@app.command("show")
def show(
    operation_id: IdArgument,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it ends.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show an operation: plan, reason, who asked and approved, how far it is.

    Example: `orgs runs show 0190c5f0-7d1c-7b7e-9d57-000000000001 --watch`
    """
    from org_service.operate import runs

    settings = shell.quiet_settings()
    operation = shell.run(runs.find(settings, operation_id))
    if watch:
        with _progress_bar(operation) as progress:
            operation = shell.run(_watch(settings, operation, progress))
    _show(operation, as_json=as_json)


@app.command("pause")
def pause(operation_id: IdArgument, *, as_json: JsonOption = False) -> None:
    """Pause a run after the step in flight; `resume` continues it.

    Example: `orgs runs pause 0190c5f0-7d1c-7b7e-9d57-000000000001`
    """
    from org_service.domain.reasons import OperationState

    _ask(operation_id, OperationState.PAUSED, as_json=as_json)


@app.command("cancel")
def cancel(operation_id: IdArgument, *, as_json: JsonOption = False) -> None:
    """Cancel an operation: a plan or a paused run at once, a running one after the step in flight. What it did stands.

    Example: `orgs runs cancel 0190c5f0-7d1c-7b7e-9d57-000000000001`
    """
    from org_service.domain.reasons import OperationState

    _ask(operation_id, OperationState.CANCELLED, as_json=as_json)


@app.command("resume")
def resume(
    operation_id: IdArgument,
    *,
    reason: ReasonOption = "",
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Continue a run that was paused, or whose process is gone, from the step after the last one. As `orgs run`.

    Example: `orgs runs resume 0190c5f0-7d1c-7b7e-9d57-000000000001`
    """
    _begin(shell.quiet_settings(), operation_id, reason, detach=detach, as_json=as_json)


@app.command("rate")
def rate(
    operation_id: IdArgument,
    *,
    rate_per_second_max: RateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bound the rate of an operation, whoever runs it, within a second; without the option it is unbounded.

    Example: `orgs runs rate 0190c5f0-7d1c-7b7e-9d57-000000000001 --rate-per-second-max 500`
    """
    from org_service.operate import runs

    settings = shell.quiet_settings()
    _show(shell.run(runs.set_rate(settings, operation_id, rate_per_second_max)), as_json=as_json)


def _ask(operation_id: UUID, wish: "OperationState", *, as_json: bool) -> None:
    from org_service.operate import runs

    _show(shell.run(runs.ask(shell.quiet_settings(), operation_id, wish)), as_json=as_json)


def _begin(settings: "Settings", operation_id: UUID, reason: str, *, detach: bool, as_json: bool) -> None:
    from org_service.domain.reasons import OperationState
    from org_service.operate import runs
    from org_service.operate.operation import NOT_DONE
    from org_service.settings import LogSettings
    from org_service.telemetry.logs import set_up_logging

    if detach:
        operation = shell.run(runs.detach(settings, operation_id, reason or None))
        if not as_json:
            shell.say(f"left to a process of the role `operate`; `orgs runs show {operation_id} --watch` follows it")
        _show(operation, as_json=as_json)
        return
    set_up_logging(LogSettings(level="warning", format="console"))  # what a run waits for, in an outage
    operation = shell.run(runs.find(settings, operation_id))
    with _progress_bar(operation) as progress:
        try:
            ended = shell.run(
                runs.run(settings, operation_id, reason=reason or None, on_progress=_reporter(progress, operation))
            )
        except KeyboardInterrupt:
            progress.stop()
            shell.say(_explain_interrupted(settings, operation_id))
            raise
    _show(ended, as_json=as_json)
    left = any(ended.facts.get(name) for name in ("conflict", "invalid")) or ended.counts.keys() & NOT_DONE
    if ended.state != OperationState.DONE or left:
        raise typer.Exit(shell.FAILED)


def _explain_interrupted(settings: "Settings", operation_id: UUID) -> str:
    """What became of a run at ^C: it may not have begun, be done, or be left behind because Postgres is away."""
    from org_service.operate import runs

    again = f"`orgs runs resume {operation_id}` continues it"
    try:
        state = shell.run(asyncio.wait_for(runs.find(settings, operation_id), LOOK_TIMEOUT_S)).state
    except Exception:  # noqa: BLE001 - it has been interrupted: that is what is said
        return f"interrupted; that could not be noted: {again} when its lease is over ({settings.operate.lease_s:g} s)"
    if state == "planned":
        return f"nothing was begun; `orgs run {operation_id}` runs it"
    return f"{state}; {again}" if state in ("paused", "running") else f"the operation is {state}"


def _progress_bar(operation: "Operation") -> "Progress":
    from rich.progress import MofNCompleteColumn

    progress = shell.make_progress_bar(MofNCompleteColumn())
    progress.add_task(operation.kind, total=operation.items, completed=operation.done, rate="")
    return progress


def _reporter(progress: "Progress", operation: "Operation") -> "Callable[[Execution], None]":
    import time

    began_at = operation.done
    began_s = said_s = 0.0

    def report(execution: "Execution") -> None:
        nonlocal began_s, said_s
        now_s = time.monotonic()
        if not began_s:
            began_s = said_s = now_s  # what came before was planning
        per_second = (execution.done - began_at) / max(now_s - began_s, 0.001)
        progress.update(progress.tasks[0].id, completed=execution.done, rate=f"{per_second:,.0f}/s")
        if progress.disable and now_s - said_s >= PLAIN_INTERVAL_S:
            said_s = now_s
            left_s = max(0, execution.items - execution.done) / per_second if per_second else None
            shell.say(
                f"{operation.kind}: {execution.done:,} of {execution.items:,}, {per_second:,.0f}/s"
                + ("" if left_s is None else f", {left_s:,.0f} s left")
            )

    return report


async def _watch(settings: "Settings", operation: "Operation", progress: "Progress") -> "Operation":
    from org_service.domain.reasons import OperationState
    from org_service.operate import runs, words

    looks = 0
    while operation.state in (OperationState.PLANNED, OperationState.RUNNING) and not operation.expired:
        if operation.abandoned and not operation.detached:
            break  # nobody goes on with it by itself
        await asyncio.sleep(WATCH_INTERVAL_S)
        before, looks = operation.done, looks + 1
        operation = await runs.find(settings, operation.id)
        per_second = (operation.done - before) / WATCH_INTERVAL_S
        progress.update(progress.tasks[0].id, completed=operation.done, rate=f"{per_second:,.0f}/s")
        if progress.disable and looks % LOOKS_A_LINE == 0:
            shell.say(
                f"{operation.kind}: {words.operation_state(operation)}, {operation.done:,} of {operation.items:,}"
            )
    return operation


def _show_plan(settings: "Settings", operation: "Operation", *, as_json: bool, goes_on: bool) -> None:
    from org_service.operate import runs

    _show(operation, as_json=as_json)
    if as_json or goes_on:
        return
    if not operation.items:
        shell.say("there is nothing to do")
        return
    if runs.needs_approval(operation, settings):
        shell.say(f"needs a second person: `orgs approve {operation.id}`")
    minutes = settings.operate.plan_ttl_s / 60
    shell.say(f"nothing was changed; within {minutes:.0f} minutes: `orgs run {operation.id} --reason …`")


def _show(operation: "Operation", *, as_json: bool) -> None:
    from org_service.cli import render

    if as_json:
        shell.write_json(render.operation_document(operation))
        return
    shell.out().print(render.operation_line(operation))
    for line in render.operation_details(operation):
        shell.out().print(line)
    if operation.state != "planned":
        return
    if operation.sample:
        shell.out().print(_sample_table(operation.sample))
        if operation.items > len(operation.sample):
            shell.out().print(f"… and {operation.items - len(operation.sample):,} more")
    for note in operation.notes:
        shell.out().print(note)


def _sample_table(sample: Sequence[Mapping[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    from org_service.operate import words

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in sample[0]:
        table.add_column(heading.replace("_", " "))
    for row in sample:
        table.add_row(*(words.value(cell) for cell in row.values()))
    return table
