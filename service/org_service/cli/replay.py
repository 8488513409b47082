"""`orgs replay`: what was published, or sent, again."""

from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import filters, operations, replay_commands, shell

if TYPE_CHECKING:
    from org_service.operate.operation import Tool
    from org_service.operate.replay_events import Where

app = typer.Typer(no_args_is_help=True, help="Replay what was published, or sent.")


app.command("commands")(replay_commands.commands)


@app.command()
def events(
    *,
    from_position: filters.FromPositionOption = None,
    to_position: filters.ToPositionOption = None,
    from_mark: filters.FromMarkOption = None,
    to_mark: filters.ToMarkOption = None,
    from_time: filters.FromTimeOption = None,
    to_time: filters.ToTimeOption = None,
    org: filters.OrgOption = None,
    org_file: filters.OrgFileOption = None,
    kind: filters.TypeOption = None,
    by: filters.ByOption = None,
    command: filters.CommandOption = None,
    command_file: filters.CommandFileOption = None,
    run: filters.RunOption = None,
    source: filters.SourceOption = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TOPIC", help="An existing topic, by its whole name; else one is made.", show_default=False
        ),
    ] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Onto orgs.events itself: every subscriber gets them again.")
    ] = False,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to send events again, from the journal, so Kafka's retention doesn't matter; --execute does it.

    They go to a topic made for it, with the same partitions, unless --to or --in-place says otherwise. Key, partition,
    body and `ce_id` are those of the first time; the header `ce_replayrun` names the run. `orgs.state` is never
    written. All conditions hold at once. Without --execute nothing is changed: the plan is printed, and kept for a
    while for `orgs run ID`.

    Example: `orgs replay events --org 0190c5f0-7d1c-7b7e-9d57-000000000001 --from-time 2026-11-01`
    """
    from org_service.operate.replay_events import ReplayEvents, fresh_topic

    if in_place and to is not None:
        raise typer.BadParameter("--to and --in-place exclude each other")
    settings = shell.quiet_settings()
    selection = filters.make_selection(
        from_position=from_position,
        to_position=to_position,
        from_mark=from_mark,
        to_mark=to_mark,
        from_time=from_time,
        to_time=to_time,
        org=org,
        org_file=org_file,
        kind=kind,
        by=by,
        command=command,
        command_file=command_file,
        run=run,
    )
    where: Where = "in_place" if in_place else "fresh" if to is None else "named"
    topic = settings.kafka.topics.events if in_place else to or fresh_topic(settings)

    async def make() -> "Tool":
        chosen = await filters.complete(settings, selection, from_mark=from_mark, to_mark=to_mark, source=source)
        return await ReplayEvents.make(settings, chosen, topic, where)

    operations.offer(
        settings,
        make,
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )
