"""`orgs send membership`, `partnership` and `staff`: what other services publish, for local use and emergencies."""

from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_events.reference import Reference

RoleOption = Literal["admin", "support", "cloud_rep", "user", "restricted_user"]
UserOption = Annotated[
    str, typer.Option(help="The user, as `sub` in their tokens: visible ASCII, no spaces.", show_default=False)
]
OrgOption = Annotated[UUID, typer.Option(help="The organization id; it need not exist yet.", show_default=False)]
RemoveOption = Annotated[bool, typer.Option("--remove", help="Remove the fact: sends a tombstone.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print topic, partition, offset and key as JSON.")]


def membership(
    *,
    user: UserOption,
    org: OrgOption,
    role: Annotated[RoleOption | None, typer.Option(help="The role of the user there.", show_default=False)] = None,
    joined_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="ISO 8601 with a time zone; now by default. The earliest membership is the user's default "
            "organization.",
        ),
    ] = None,
    inactive: Annotated[bool, typer.Option("--inactive", help="Keep the membership, but without access.")] = False,
    remove: RemoveOption = False,
    as_json: JsonOption = False,
) -> None:
    """A user belongs to an organization, or (`--remove`) no longer does.

    The whole membership is replaced. A worker applies it when it arrives; there is no outcome to wait for.

    Example: `orgs send membership --user ann --org 0190c5f0-7d1c-7b7e-9d57-000000000001 --role admin`
    """
    if role is None and not remove:
        raise typer.BadParameter("--role is required without --remove")
    fields = {"user_id": user, "org_id": org, "role": role or "user", "joined_at": joined_at or _now()}
    _send("membership", fields | {"active": not inactive}, remove, as_json)


def partnership(
    *,
    partner: Annotated[UUID, typer.Option(help="The organization that serves the other.", show_default=False)],
    org: Annotated[UUID, typer.Option(help="The organization that is served.", show_default=False)],
    role: Annotated[RoleOption, typer.Option(help="The role of the partner's members there.")] = "cloud_rep",
    remove: RemoveOption = False,
    as_json: JsonOption = False,
) -> None:
    """The members of one organization serve another, or (`--remove`) no longer do.

    Example: `orgs send partnership --partner 0190c5f0-7d1c-7b7e-9d57-000000000002 --org 0190c5f0-7d1c-7b7e-…`
    """
    _send("partnership", {"partner_org_id": partner, "org_id": org, "role": role}, remove, as_json)


def staff(*, user: UserOption, remove: RemoveOption = False, as_json: JsonOption = False) -> None:
    """A user works for the platform, or (`--remove`) no longer does. Staff are admin in every active organization.

    Example: `orgs send staff --user sue`
    """
    _send("staff", {"user_id": user}, remove, as_json)


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat()


def _send(kind: str, fields: dict[str, Any], remove: bool, as_json: bool) -> None:
    from pydantic import ValidationError

    from org_events.reference import Membership, Partnership, Staff
    from org_service.cli.trouble import wrong_fields
    from org_service.operate import reference

    models: dict[str, type[Reference]] = {"membership": Membership, "partnership": Partnership, "staff": Staff}
    try:
        fact = models[kind].model_validate(fields)
    except ValidationError as error:
        shell.fail(f"nothing was sent:\n  {wrong_fields(error)}", shell.USAGE)
    settings = shell.quiet_settings()
    (sent,) = shell.run(reference.publish(settings.kafka, [reference.FactEntry(fact, removed=remove)]))
    key = fact.key().decode()
    if as_json:
        shell.write_json({**sent._asdict(), "key": key, "removed": remove})
    else:
        what = f"end of {kind}" if remove else kind
        shell.write_text(f"sent  {what} {key}  {sent.topic}[{sent.partition}] offset {sent.offset}")
