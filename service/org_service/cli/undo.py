"""`orgs undo`: changes are taken back."""

from typing import TYPE_CHECKING

import typer

from org_service.cli import filters, operations, shell

if TYPE_CHECKING:
    from org_service.operate.operation import Tool


def undo(
    *,
    run: filters.RunOption = None,
    by: filters.ByOption = None,
    source: filters.SourceOption = None,
    command: filters.CommandOption = None,
    command_file: filters.CommandFileOption = None,
    from_time: filters.FromTimeOption = None,
    to_time: filters.ToTimeOption = None,
    from_mark: filters.FromMarkOption = None,
    to_mark: filters.ToMarkOption = None,
    from_position: filters.FromPositionOption = None,
    to_position: filters.ToPositionOption = None,
    org: filters.OrgOption = None,
    org_file: filters.OrgFileOption = None,
    kind: filters.TypeOption = None,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to take changes back: of a run, an actor, a publisher, commands, a time, or since a mark; --execute does it.

    The plan says what each organization would become, and what stands in the way: whatever somebody changed since then
    stays as it is, in the plan and in the run. Several changes of one organization are taken back at once. What was
    created is deleted, what was deleted is restored; versions go on. All conditions hold at once, and at least one is
    needed. An undo is a run, and can be undone: `--run ID`.

    Exits with 1 if it ran and something was left as it is.

    Example: `orgs undo --by mallory --from-mark before-the-party`
    """
    from org_service.operate import runs
    from org_service.operate.undo import Undo

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

    if selection.asks_for_all and not (from_mark or to_mark or source):
        raise typer.BadParameter("say which changes: without any condition everything that ever happened is meant")

    async def make() -> "Tool":
        for run_id in selection.run_ids:
            await runs.find(settings, run_id)
        chosen = await filters.complete(settings, selection, from_mark=from_mark, to_mark=to_mark, source=source)
        return await Undo.make(settings, chosen)

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
