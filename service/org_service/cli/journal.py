"""`orgs journal`: recovery after a backup was restored."""

import typer

from org_service.cli import operations, shell

app = typer.Typer(no_args_is_help=True, help="The journal: recover after an older backup was restored.")


@app.callback()
def group() -> None:
    """Keep `advance` a subcommand even while it is the only one."""


@app.command()
def advance(
    *,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Move the journal past what Kafka has, when the relay says that Kafka is ahead of it.

    That happens after the database was restored from an older backup. If you can, restore a backup that contains the
    position the relay names. This command is for when there is none: the changes since the backup stay lost to the
    service, though subscribers have seen them; commands that were decided since the restore get later positions, so
    that the relay publishes them too. **Stop all workers first**, start them and the relay afterwards.

    Prints what would be lost and moved; --execute does it. Needs the rights of the database's owner. Exits with 1 if
    there is nothing to do.

    Example: `orgs journal advance --execute --reason "backup of last night restored"`
    """
    from org_service.operate.journal import JournalAdvance

    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: JournalAdvance.make(settings),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )
