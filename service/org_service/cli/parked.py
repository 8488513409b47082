"""`orgs parked`: what waits for an operator, and what becomes of it."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

import typer

from org_service.cli import filters, look, operations, shell

if TYPE_CHECKING:
    from org_service.operate.parked_selection import ParkedSelection
    from org_service.settings import Settings
    from org_service.store.database import DatabaseConnection
    from org_service.store.parked_queues import ParkedCount, ParkedGroup, ParkedRecord

app = typer.Typer(
    help="What is parked: why, and what becomes of it. Alone: groups by cause, and what each holds up.",
    invoke_without_command=True,
)

IdsArgument = Annotated[
    list[int] | None,
    typer.Argument(metavar="[ID]...", min=1, max=shell.INTEGER_MAX, help="Of parked records.", show_default=False),
]
IdArgument = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=shell.INTEGER_MAX, help="Of the parked record.", show_default=False)
]
GroupOption = Annotated[
    str | None, typer.Option("--group", help="Of this group, by its name in `orgs parked`.", show_default=False)
]
ParkReasonOption = Annotated[
    str | None, typer.Option("--parked-for", help="Parked for this, as handler_raised.", show_default=False)
]
FromTimeOption = Annotated[
    datetime | None, typer.Option(formats=filters.MOMENTS, help="Parked at or after this, UTC.", show_default=False)
]
ToTimeOption = Annotated[
    datetime | None, typer.Option(formats=filters.MOMENTS, help="Parked before this, UTC.", show_default=False)
]
FromMarkOption = Annotated[str | None, typer.Option(metavar="NAME", help="Parked since this mark.", show_default=False)]
ToMarkOption = Annotated[str | None, typer.Option(metavar="NAME", help="Parked before this mark.", show_default=False)]
EveryOption = Annotated[bool, typer.Option("--all", help="All that is parked.")]


@app.callback()
def groups(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and group.")] = False,
) -> None:
    """What is parked: why, and what becomes of it.

    Alone: groups by cause. A group is what is parked for one reason, at one place of our code or with one code of the
    database: how many, since when, how many organizations it holds up, and how many commands wait behind. `exhausted`
    are those that were released three times in vain.

    Example: `orgs parked`
    """
    if context.invoked_subcommand is not None:
        return
    from org_service.cli import render_parked
    from org_service.operate.parked_selection import name_group

    async def read(conn: "DatabaseConnection") -> "list[ParkedGroup]":
        from org_service.store import parked_queues

        return await parked_queues.group(conn)

    found = look.ask(read)
    for group in found:
        if as_json:
            shell.write_json({"group": name_group(group)} | group._asdict())
        else:
            shell.out().print(render_parked.group_line(name_group(group), group))
    if not found:
        shell.say("nothing is parked")
    elif not as_json:
        shell.say(
            "`orgs parked list --group NAME` has the records; `orgs parked release --group NAME` once it is mended"
        )


@app.command("list")
def list_records(
    ids: IdsArgument = None,
    *,
    group: GroupOption = None,
    org: filters.OrgOption = None,
    command: filters.CommandOption = None,
    parked_for: ParkReasonOption = None,
    from_time: FromTimeOption = None,
    to_time: ToTimeOption = None,
    from_mark: FromMarkOption = None,
    to_mark: ToMarkOption = None,
    every: Annotated[bool, typer.Option("--all", help="Include released and discarded ones.")] = False,
    last: Annotated[int, typer.Option("--max", "-n", min=1, max=10_000, help="Show at most this many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List parked records: why they wait for an operator, where they came from, and totals at the end.

    All conditions hold at once. Payloads are never shown. The last line of --json has the totals, and no id.

    Example: `orgs parked list --org 0190c5f0-7d1c-7b7e-9d57-000000000001`
    """
    from org_service.cli import render_parked

    selection = _select(ids, group, org, command, parked_for, from_time, to_time, from_mark, to_mark, every=True)

    async def read(conn: "DatabaseConnection") -> "tuple[list[ParkedRecord], list[ParkedCount]]":
        from org_service.domain.reasons import ParkedState
        from org_service.store import parked_queues

        chosen = await selection.complete(conn, group=group, from_mark=from_mark, to_mark=to_mark)
        wanted = chosen.as_filter(None if every else ParkedState.OPEN)
        return await parked_queues.list_records(conn, wanted, 0, last), await parked_queues.count(conn, wanted)

    records, counts = look.ask(read)
    for record in records:
        if as_json:
            shell.write_json(record._asdict())
        else:
            shell.out().print(render_parked.record_line(record))
    total = sum(each.records for each in counts)
    if as_json:
        shell.write_json({"total": total, "shown": len(records), "totals": [each._asdict() for each in counts]})
    elif not records:
        shell.say("nothing is parked, or nothing that is asked for")
    else:
        more = "" if total <= len(records) else f", {len(records)} of them shown; --max shows more"
        shell.out().print(f"{total:,} parked{more}")
        for count in counts:
            shell.out().print(render_parked.count_line(count))


@app.command()
def show(
    parked_id: IdArgument,
    *,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show what it holds; needs --reason, and is kept.")] = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Show a parked record: why, where it came from, its fields and headers, and the queue that it is in.

    What its fields say is masked. --reveal shows it; that is kept as an operation of kind `parked reveal` (`orgs runs`)
    before anything is shown, and needs nobody's approval. Tokens are never kept.

    Example: `orgs parked show 17`
    """
    from org_service.cli import render_parked
    from org_service.operate import parked_contents

    settings = shell.quiet_settings()
    stored, queue = shell.run(parked_contents.read(settings, parked_id))
    if reveal:
        shell.run(_reveal(settings, parked_id, reason, actor))
    described = parked_contents.describe(stored, reveal=reveal)
    if as_json:
        shell.write_json(described | {"queue": [each.id for each in queue]})
        return
    for line in render_parked.contents(described):
        shell.out().print(line)
    if len(queue) > 1:
        shell.out().print("its queue, in order:")
        for record in queue:
            shell.out().print(render_parked.record_line(record))


async def _reveal(settings: "Settings", parked_id: int, reason: str, actor: str | None) -> None:
    from org_service.operate import runs
    from org_service.operate.parked_contents import RevealParked

    if not reason.strip():
        raise typer.BadParameter("--reveal needs --reason: it is kept with your name.")
    tool = RevealParked(settings, {"parked_id": parked_id})
    operation, _ = await runs.keep_plan(settings, tool, requested_by=actor or shell.login(), reason=reason)
    await runs.run(settings, operation.id)


@app.command()
def release(
    ids: IdsArgument = None,
    *,
    group: GroupOption = None,
    org: filters.OrgOption = None,
    command: filters.CommandOption = None,
    parked_for: ParkReasonOption = None,
    from_time: FromTimeOption = None,
    to_time: ToTimeOption = None,
    from_mark: FromMarkOption = None,
    to_mark: ToMarkOption = None,
    every: EveryOption = False,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to decide parked commands, once their cause is gone; --execute does it.

    Of each organization that has a record of the selection the whole queue is decided, in order. Each command is
    decided on what is there now, as whoever was verified when it was parked, and its publisher gets the outcome. What
    fails again stays parked; after three releases it can only be discarded or edited. All conditions hold at once, and
    all that matches is meant.

    Example: `orgs parked release --group 1f0c9a3e --execute --reason "fixed in 1.4.2"`
    """
    from org_service.operate.parked import ReleaseParked

    settings = shell.quiet_settings()
    selection = _select(ids, group, org, command, parked_for, from_time, to_time, from_mark, to_mark, every=every)
    operations.offer(
        settings,
        lambda: ReleaseParked.make(settings, selection, group=group, from_mark=from_mark, to_mark=to_mark),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )


@app.command()
def discard(
    ids: IdsArgument = None,
    *,
    group: GroupOption = None,
    org: filters.OrgOption = None,
    command: filters.CommandOption = None,
    parked_for: ParkReasonOption = None,
    from_time: FromTimeOption = None,
    to_time: ToTimeOption = None,
    from_mark: FromMarkOption = None,
    to_mark: ToMarkOption = None,
    every: EveryOption = False,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to discard parked records; --execute does it. There is no way back.

    A command is rejected, finally (500 `discarded`), and its publisher is told; then what waits behind it in its queue
    is decided, in order. Only what is selected is discarded: name the record, not the organization, to keep what waits.
    Records that are no commands are only noted as discarded.

    Example: `orgs parked discard 17 --execute --reason "sent by mistake"`
    """
    from org_service.operate.parked import DiscardParked

    settings = shell.quiet_settings()
    selection = _select(ids, group, org, command, parked_for, from_time, to_time, from_mark, to_mark, every=every)
    operations.offer(
        settings,
        lambda: DiscardParked.make(settings, selection, group=group, from_mark=from_mark, to_mark=to_mark),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )


@app.command()
def edit(
    parked_id: IdArgument,
    *,
    body: Annotated[
        str | None, typer.Option("--body", help="JSON of the new command; org_id may be left out.", show_default=False)
    ] = None,
    body_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The same, in a file.", show_default=False)
    ] = None,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to discard a parked command and send another in its place, of the same type; --execute does it.

    The new one has an id of its own, names the old one in `ce_causationid`, acts for you, and comes behind what waits
    in the queue. The publisher of the old one is told that it was discarded, and the id of the new one.

    Example: `orgs parked edit 17 --body '{"name": "Acme AS"}' --execute --reason "the name has a typing error"`
    """
    from org_service.operate.parked_edit import EditParked

    document = _document(body, body_file)
    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: EditParked.make(settings, parked_id, document),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )


def _document(body: str | None, body_file: Path | None) -> "Mapping[str, Any]":
    import orjson

    if (body is None) == (body_file is None):
        raise typer.BadParameter("give the new command with --body or --body-file, one of them")
    try:
        document: Any = orjson.loads(body or "" if body_file is None else body_file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"the new command is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise typer.BadParameter("the new command must be a JSON object, as its body on orgs.commands")
    return cast("dict[str, Any]", document)


def _select(  # noqa: PLR0917 - as they come from the command line
    ids: list[int] | None,
    group: str | None,
    org: list[UUID] | None,
    command: list[UUID] | None,
    parked_for: str | None,
    from_time: datetime | None,
    to_time: datetime | None,
    from_mark: str | None,
    to_mark: str | None,
    *,
    every: bool,
) -> "ParkedSelection":
    """What the options say; group and marks come in with `ParkedSelection.complete`."""
    from org_service.domain.reasons import ParkReason
    from org_service.operate.parked_selection import ParkedSelection

    if not any((every, ids, group, org, command, parked_for, from_time, to_time, from_mark, to_mark)):
        raise typer.BadParameter(
            "say which records: an ID, --group, --org, --command, --parked-for, --from-time, --to-time, --from-mark or "
            "--to-mark; or --all"
        )
    filters.exclude_marks("time", (from_time, to_time), (from_mark, to_mark))
    if parked_for is not None and parked_for not in list(ParkReason):
        raise typer.BadParameter(f"--parked-for {parked_for}: unknown; there are {', '.join(ParkReason)}")
    return ParkedSelection(
        ids=tuple(ids or ()),
        org_ids=tuple(org or ()),
        command_ids=tuple(command or ()),
        reason=None if parked_for is None else ParkReason(parked_for),
        from_time=filters.utc(from_time),
        to_time=filters.utc(to_time),
    )
