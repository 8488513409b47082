"""`orgs replay`: what was published, or sent, again."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from org_service.cli import operations, replay_commands, shell
from org_service.cli.filters import MOMENTS, ids_in, utc

if TYPE_CHECKING:
    from org_service.operate.operation import Tool
    from org_service.operate.replay_events import Where

app = typer.Typer(no_args_is_help=True, help="Replay what was published, or sent.")


app.command("commands")(replay_commands.commands)


@app.command()
def events(
    *,
    from_position: Annotated[int, typer.Option(min=1, help="The first journal position.")] = 1,
    to_position: Annotated[
        int | None, typer.Option(min=1, help="The last one; the end of the journal by default.", show_default=False)
    ] = None,
    from_time: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="Recorded at or after this, UTC.", show_default=False)
    ] = None,
    to_time: Annotated[
        datetime | None, typer.Option(formats=MOMENTS, help="Recorded before this, UTC.", show_default=False)
    ] = None,
    org: Annotated[
        list[UUID] | None, typer.Option(help="Of this organization; may be repeated.", show_default=False)
    ] = None,
    org_file: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Of the organizations in a file, an id a line.", show_default=False
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="Of this type, as org.updated; may be repeated.", show_default=False),
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="Changed by this actor; may be repeated.", show_default=False)
    ] = None,
    command: Annotated[
        list[UUID] | None, typer.Option(help="Of this command id; may be repeated.", show_default=False)
    ] = None,
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
    from org_service.operate.changes import Selection
    from org_service.operate.replay_events import ReplayEvents, fresh_topic

    if in_place and to is not None:
        raise typer.BadParameter("--to and --in-place exclude each other")
    settings = shell.quiet_settings()
    selection = Selection(
        from_position=from_position,
        to_position=to_position,
        from_time=utc(from_time),
        to_time=utc(to_time),
        org_ids=(*(org or ()), *ids_in(org_file)),
        types=_known(kind or ()),
        actors=tuple(by or ()),
        command_ids=tuple(command or ()),
    )
    where: Where = "in_place" if in_place else "fresh" if to is None else "named"
    topic = settings.kafka.topics.events if in_place else to or fresh_topic(settings)

    async def make() -> "Tool":
        return await ReplayEvents.make(settings, selection, topic, where)

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


def _known(kinds: Iterable[str]) -> tuple[str, ...]:
    """Types of events; the part before the dot may be left out."""
    from org_events.events import EventType

    found = tuple(kind if kind.startswith("org.") else f"org.{kind}" for kind in kinds)
    known = list(EventType)
    for kind in found:
        if kind not in known:
            raise typer.BadParameter(f"--type {kind}: unknown; there are {', '.join(known)}")
    return found
