"""`orgs journal`: recovery after a backup was restored."""

from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_service.operate.journal import Recovery

SHOWN_MAX = 20

app = typer.Typer(no_args_is_help=True, help="The journal: recover after an older backup was restored.")


@app.callback()
def group() -> None:
    """Keep `advance` a subcommand even while it is the only one."""


@app.command()
def advance(*, yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False) -> None:
    """Move the journal past what Kafka has, when the relay says that Kafka is ahead of it.

    That happens after the database was restored from an older backup. If you can, restore a backup that contains the
    position the relay names. This command is for when there is none: the changes since the backup stay lost to the
    service, though subscribers have seen them; commands that were decided since the restore get later positions, so
    that the relay publishes them too. **Stop all workers first**, start them and the relay afterwards.

    Needs the rights of the database's owner. Exits with 1 if there is nothing to do.

    Example: `orgs journal advance`
    """
    from org_service.operate import journal

    settings = shell.quiet_settings()

    def confirm(found: "Recovery") -> bool:
        _explain(found)
        return yes or typer.confirm("Continue past them?", err=True)

    done = shell.run(journal.advance(settings, confirm))
    if done is None:
        shell.fail("nothing was changed.")
    shell.write_text(
        f"the journal continues at position {done.advance.head + 1}; start the relay and the workers again"
    )


def _explain(found: "Recovery") -> None:
    advance = found.advance
    shell.say(
        f"Kafka has positions up to {advance.published}, the backup up to {advance.restored}: {advance.lost} "
        f"decided commands are lost to the service, {len(found.lost_changes)} of them changed something, as "
        "subscribers have seen."
    )
    for change in found.lost_changes[:SHOWN_MAX]:
        shell.say(f"  {change.position}  {change.org_id}  v{change.version} {change.event_type}")
    if len(found.lost_changes) > SHOWN_MAX:
        shell.say(f"  … and {len(found.lost_changes) - SHOWN_MAX} more")
    shell.say(
        f"{advance.fresh} commands decided since the restore move to positions {advance.published + 1} and "
        "later. The organizations listed above will publish versions again that subscribers have seen."
        if advance.fresh
        else "No command was decided since the restore. The organizations listed above will publish versions "
        "again that subscribers have seen."
    )
