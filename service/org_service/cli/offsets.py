"""`orgs offsets`: who reads our topics and how far, and where a group shall continue."""

import csv
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from org_service.cli import operations, shell
from org_service.cli.filters import MOMENTS, utc

if TYPE_CHECKING:
    from org_service.operate.groups import GroupStanding
    from org_service.operate.offsets import Target
    from org_service.operate.operation import Tool

GroupArgument = Annotated[str, typer.Argument(metavar="GROUP", help="As `orgs offsets` lists it.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]

app = typer.Typer(
    help="Consumer groups on our topics: lag, time to loss, and where one shall continue.", invoke_without_command=True
)


@app.callback()
def group(context: typer.Context) -> None:
    """List consumer groups, where nothing else is asked for."""
    if context.invoked_subcommand is None:
        list_groups()


@app.command("list")
def list_groups(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and group.")] = False
) -> None:
    """List the consumer groups that have committed on our topics; the one that loses a record first comes first.

    Time to loss is when retention may take the first record that a group has not read.

    Example: `orgs offsets list`
    """
    from org_service.cli import render_status

    found = shell.run(_look())
    if as_json:
        for each in found:
            shell.write_json(render_status.group_document(each))
        return
    if found:
        shell.out().print(render_status.groups(found))
    else:
        shell.say("no consumer group has committed on our topics")


@app.command("show")
def show(
    group: GroupArgument,
    *,
    export: Annotated[
        bool, typer.Option("--export", help="As CSV (topic,partition,offset), for --from-file and Kafka's own tools.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where a group stands, partition by partition, worst first.

    Example: `orgs offsets show billing --export > billing.csv`
    """
    from org_service.cli import render_status

    found = next((each for each in shell.run(_look()) if each.name == group), None)
    if found is None:
        shell.fail(f"the group {group!r} has committed nothing on our topics; `orgs offsets` lists those that have.")
    if export:
        for each in sorted(found.partitions, key=lambda each: (each.topic, each.partition)):
            if each.committed is not None:
                shell.write_text(f"{each.topic},{each.partition},{each.committed}")
    elif as_json:
        shell.write_json(render_status.group_document(found))
    else:
        shell.out().print(render_status.groups([found]))
        shell.out().print(render_status.partitions(found.partitions))


@app.command("reset")
def reset(
    group: GroupArgument,
    *,
    to_position: Annotated[
        int | None, typer.Option(min=0, help="Behind this position of the journal.", show_default=False)
    ] = None,
    to_mark: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where topics ended at this mark.", show_default=False)
    ] = None,
    to_datetime: Annotated[
        datetime | None,
        typer.Option(formats=MOMENTS, help="At the first records of a time, UTC.", show_default=False),
    ] = None,
    to_earliest: Annotated[bool, typer.Option("--to-earliest", help="At the first records that are there.")] = False,
    to_latest: Annotated[bool, typer.Option("--to-latest", help="Behind the last ones.")] = False,
    from_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="As a file of `show --export` says.", show_default=False),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(help="Only on this topic; may be repeated. By default where the group has committed."),
    ] = None,
    may_skip_commands: Annotated[
        bool,
        typer.Option("--may-skip-commands", help="The workers' group may leave commands undecided for ever."),
    ] = False,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Set where a group continues. Nobody may be in it: stop its consumers first.

    Prints the plan, partition by partition; --execute commits it and reads it back. With --to-position, what the group
    reads next on orgs.events is exactly what came behind the position; on orgs.results and orgs.state it may read some
    records before it again.

    Example: `orgs offsets reset billing --to-mark before-release-7`
    """
    settings = shell.quiet_settings()
    target = _target(
        position=to_position,
        mark=to_mark,
        time=utc(to_datetime),
        earliest=to_earliest or None,
        latest=to_latest or None,
        file=None if from_file is None else _read_file(from_file),
    )

    async def make() -> "Tool":
        from org_service.operate.offsets import ResetOffsets

        return await ResetOffsets.make(settings, group, target, topic or (), may_skip_commands=may_skip_commands)

    operations.offer(
        settings,
        make,
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )


async def _look() -> "list[GroupStanding]":
    from org_service.operate import groups

    return list((await groups.look(shell.quiet_settings().kafka)).groups)


def _target(**given: Any) -> "Target":
    from org_service.operate.offsets import Target

    named = {kind: value for kind, value in given.items() if value is not None}
    if len(named) != 1:
        raise typer.BadParameter(
            "say where to, once: --to-position, --to-mark, --to-datetime, --to-earliest, --to-latest or --from-file"
        )
    ((kind, value),) = named.items()
    return Target(kind, value)  # pyright: ignore[reportArgumentType] - the keywords above are the kinds


def _read_file(path: Path) -> dict[tuple[str, int], int]:
    with path.open(encoding="utf-8", newline="") as file:
        return _read_rows(path, csv.reader(file))


def _read_rows(path: Path, rows: Iterable[list[str]]) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    for number, row in enumerate(rows, 1):
        match row:
            case []:
                continue
            case [topic, partition, offset] if partition.isdecimal() and offset.isdecimal():
                found[topic, int(partition)] = int(offset)
            case _:
                raise typer.BadParameter(f"{path}, line {number}: not topic,partition,offset")
    if not found:
        raise typer.BadParameter(f"{path} has no offsets")
    return found
