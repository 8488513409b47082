"""`orgs erase`, `orgs purge`: what is left of deleted organizations goes for good."""

from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import operations, shell

if TYPE_CHECKING:
    from org_service.operate.erasure_status import Copy
    from org_service.settings import Settings


def erase(
    org: Annotated[
        str | None, typer.Argument(metavar="[ORG]", help="Its id, or the name that it had.", show_default=False)
    ] = None,
    *,
    status: Annotated[
        bool, typer.Option("--status", help="Look for what is left of erased organizations, ORG or all.")
    ] = False,
    before_grace: Annotated[
        bool,
        typer.Option("--before-grace", help="Whenever it was deleted; a second person has to approve."),
    ] = False,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to erase a deleted organization whose grace is over; --execute does it. There is no way back.

    Its name, domain, addresses and the users who changed it leave every table; the rows stay, empty, so that positions
    and versions go on. Subscribers get `org.erased`. Its id stays taken, its name is free. Grace is
    ORGS_OPERATE__ERASE_GRACE_DAYS from the deletion on.

    --status reads tables and topics from end to end for what is left, and says when it will be gone; it changes
    nothing. Exits with 0 when nothing is left, with 1 when something is.

    Example: `orgs erase 0190c5f0-7d1c-7b7e-9d57-000000000001 --execute --reason "asked for on 28 November"`
    """
    from org_service.operate.erase import Erase

    settings = shell.quiet_settings()
    if status:
        _show_status(settings, org, as_json=as_json)
        return
    if org is None:
        raise typer.BadParameter("name an organization; `orgs purge` erases all whose grace is over")
    operations.offer(
        settings,
        lambda: Erase.make(settings, org, before_grace=before_grace),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=None,
        actor=actor,
        as_json=as_json,
    )


def purge(
    *,
    execute: operations.ExecuteOption = False,
    detach: operations.DetachOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to erase all deleted organizations whose grace is over, as `orgs erase` does one; --execute does it.

    Grace is ORGS_OPERATE__ERASE_GRACE_DAYS from the deletion on. Exits with 1 if something was left: an organization
    of which a command is parked needs a release or a discard first.

    Example: `orgs purge --execute --reason "monthly"`
    """
    from org_service.operate.erase import Erase

    settings = shell.quiet_settings()
    operations.offer(
        settings,
        lambda: Erase.make(settings, None),
        execute=execute,
        detach=detach,
        reason=reason,
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )


def _show_status(settings: "Settings", org: str | None, *, as_json: bool) -> None:
    from uuid import UUID

    from org_service.operate import erasure_status

    try:
        org_id = None if org is None else UUID(org)
    except ValueError:
        raise typer.BadParameter("an erased organization has no name any more: give its id") from None
    found = shell.run(erasure_status.look(settings, org_id, lambda place: shell.say(f"looking at {place} …")))
    if as_json:
        shell.write_json(
            {
                "organizations": found.organizations,
                "left": found.left,
                "copies": [each._asdict() for each in found.copies],
            }
        )
    else:
        for each in found.copies:
            shell.write_text(_line(each))
        said = f"{found.organizations:,} erased; " + (
            f"{found.left:,} copies are left" if found.left else "none is left"
        )
        shell.write_text(said)
        shell.say("not seen from here: dead rows until VACUUM, and backups and WAL as long as they are kept")
    if found.left:
        raise typer.Exit(shell.FAILED)


def _line(copy: "Copy") -> str:
    if not copy.left:
        said = "nothing left"
    else:
        said = f"{copy.left:,} left"
        if copy.newest is not None:
            said += f", the last of {copy.newest:%Y-%m-%d %H:%M}Z"
        if copy.gone_by is not None:
            said += f", gone by {copy.gone_by:%Y-%m-%d %H:%M}Z"
    return f"{copy.place:<28} {said}" + ("" if copy.advice is None else f"; {copy.advice}")
