"""`orgs rebuild` and `orgs recover`: the database from the topics."""

from org_service.cli import operations, shell


def rebuild(
    *,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Write a lost database again, from the topics alone.

    Into an empty database: make one, run `orgs migrate`, and let no worker, relay or edge run on it until this is done.
    Organizations, journal, versions and positions come back as they were published, as far as the topics go back; no
    command is decided again and nothing is published again. The plan says how far back the topics go. Where there is a
    backup, restore it and use `orgs recover`: it has what the topics lack.

    Prints the plan; --execute does it. A run that was killed is resumed (`orgs runs resume ID`). Until it is done
    workers wait and a relay refuses to start. Needs the rights of the database's owner. Exits with 1 if it can't be
    done: the database is not empty, or something runs.

    Example: `orgs rebuild --execute --reason "the primary and its backups are lost"`
    """
    from org_service.operate.restoring.restore import Rebuild

    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: Rebuild.make(settings),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )


def recover(
    *,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Bring a database that was restored from a backup forward to what Kafka has.

    For when the relay says that Kafka is ahead of the journal. What was published since the backup comes back as it was
    published; what was decided and not published is decided again. Nothing is published again. Stop workers, relay and
    edges before the restore. Where the topics and the backup contradict each other, it says so and does nothing;
    `orgs journal advance` is the last resort then.

    Prints the plan; --execute does it. A run that was killed is resumed (`orgs runs resume ID`). Needs the rights of
    the database's owner. Exits with 1 if there is nothing to do, or if it can't be done.

    Example: `orgs recover --execute --reason "last night's backup restored"`
    """
    from org_service.operate.restoring.restore import Recover

    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: Recover.make(settings),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )
