"""`orgs send`: one command, and what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID, uuid5

import typer

from org_service.cli import reference, shell

if TYPE_CHECKING:
    from org_events.publishing.client import Sent
    from org_events.results import Result

app = typer.Typer(
    no_args_is_help=True,
    help="Send a command and wait for its outcome.\n\nExits with 0 if it was applied or there was nothing to "
    "change, 1 if it was rejected, 3 if no final outcome arrived in\ntime: then retry with `--command-id`, "
    "which is safe. Also sends the reference data that the service only reads:\nmembership, partnership, "
    "staff.",
)


class Nullable(StrEnum):
    """A field that may be null."""

    DOMAIN = "domain"
    PRIMARY_ADDRESS = "primary_address"


OrgArgument = Annotated[UUID, typer.Argument(metavar="ORG", help="The organization id.", show_default=False)]
NameOption = Annotated[str | None, typer.Option(help="1 to 200 characters, unique.")]
DomainOption = Annotated[str | None, typer.Option(help="A host name with two or more labels, in ASCII.")]
Line1Option = Annotated[str | None, typer.Option(help="Address: first line. An address is always replaced as a whole.")]
Line2Option = Annotated[str | None, typer.Option(help="Address: second line.")]
CityOption = Annotated[str | None, typer.Option(help="Address: city.")]
RegionOption = Annotated[str | None, typer.Option(help="Address: region, state or province.")]
PostalCodeOption = Annotated[str | None, typer.Option(help="Address: postal code.")]
CountryOption = Annotated[str | None, typer.Option(help="Address: ISO 3166-1 alpha-2 country code, such as NO.")]
ClearOption = Annotated[list[Nullable] | None, typer.Option(help="Set this field to null; may be repeated.")]
ExpectedVersionOption = Annotated[
    int | None, typer.Option(min=1, help="Only if the organization has this version.", rich_help_panel="Preconditions")
]
IfNameOption = Annotated[str | None, typer.Option(help="Only if this is its name.", rich_help_panel="Preconditions")]
IfDomainOption = Annotated[
    str | None, typer.Option(help="Only if this is its domain.", rich_help_panel="Preconditions")
]
IfNullOption = Annotated[
    list[Nullable] | None,
    typer.Option(help="Only if this field is null; may be repeated.", rich_help_panel="Preconditions"),
]
CommandIdOption = Annotated[
    UUID | None, typer.Option(help="The id of the first attempt, to send it again.", rich_help_panel="Sending")
]
ActorOption = Annotated[
    str | None,
    typer.Option(
        help="The actor, where publishers are trusted; by default the user of ORGS_TOKEN, or your login.",
        rich_help_panel="Sending",
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, max=3600, help="Seconds to wait.", rich_help_panel="Sending")
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the outcome.", rich_help_panel="Sending")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.", rich_help_panel="Sending")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _SendOptions:
    """How to send."""

    command_id: UUID | None
    actor: str | None
    timeout_s: float
    wait: bool
    as_json: bool


def _new_command_id() -> UUID:
    from org_events.ids import uuid7

    return uuid7()


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="1 to 200 characters, unique.", show_default=False)],
    org_id: Annotated[UUID | None, typer.Option("--id", help="The organization id; a new one by default.")] = None,
    domain: DomainOption = None,
    line1: Line1Option = None,
    line2: Line2Option = None,
    city: CityOption = None,
    region: RegionOption = None,
    postal_code: PostalCodeOption = None,
    country: CountryOption = None,
    command_id: CommandIdOption = None,
    actor: ActorOption = None,
    timeout_s: TimeoutOption = 15,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Create an organization.

    Example: `orgs send create --name "Acme AS" --domain acme.no --line1 "Storgata 1" --city Oslo --country NO`
    """
    fields = _fields(
        name=name,
        domain=domain,
        primary_address=_address(
            line1=line1, line2=line2, city=city, region=region, postal_code=postal_code, country=country
        ),
    )
    command_id = command_id or _new_command_id()
    sending = _SendOptions(command_id=command_id, actor=actor, timeout_s=timeout_s, wait=wait, as_json=as_json)
    # With another id of the organization it would be another command, and sending it again would be rejected.
    _send("org.create", {"org_id": org_id or uuid5(command_id, "organization"), **fields}, sending)


@app.command()
def update(
    org: OrgArgument,
    *,
    name: NameOption = None,
    domain: DomainOption = None,
    line1: Line1Option = None,
    line2: Line2Option = None,
    city: CityOption = None,
    region: RegionOption = None,
    postal_code: PostalCodeOption = None,
    country: CountryOption = None,
    clear: ClearOption = None,
    expected_version: ExpectedVersionOption = None,
    if_name: IfNameOption = None,
    if_domain: IfDomainOption = None,
    if_null: IfNullOption = None,
    command_id: CommandIdOption = None,
    actor: ActorOption = None,
    timeout_s: TimeoutOption = 15,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Change what is given; everything else stays. An address is replaced whole.

    Example: `orgs send update 0190c5f0-7d1c-7b7e-9d57-000000000001 --clear domain --expected-version 3`
    """
    fields = _fields(
        name=name,
        domain=domain,
        primary_address=_address(
            line1=line1, line2=line2, city=city, region=region, postal_code=postal_code, country=country
        ),
    )
    body = {"org_id": org, **_with_nulls(fields, clear, "--clear")}
    body |= _preconditions(expected_version, if_name, if_domain, if_null)
    sending = _SendOptions(command_id=command_id, actor=actor, timeout_s=timeout_s, wait=wait, as_json=as_json)
    _send("org.update", body, sending)


def _on_existing(command_type: str, what: str) -> Callable[..., None]:
    """A command that takes an organization and preconditions, nothing else."""

    def command(
        org: OrgArgument,
        *,
        expected_version: ExpectedVersionOption = None,
        if_name: IfNameOption = None,
        if_domain: IfDomainOption = None,
        if_null: IfNullOption = None,
        command_id: CommandIdOption = None,
        actor: ActorOption = None,
        timeout_s: TimeoutOption = 15,
        wait: WaitOption = True,
        as_json: JsonOption = False,
    ) -> None:
        body = {"org_id": org, **_preconditions(expected_version, if_name, if_domain, if_null)}
        sending = _SendOptions(command_id=command_id, actor=actor, timeout_s=timeout_s, wait=wait, as_json=as_json)
        _send(command_type, body, sending)

    verb = command_type.removeprefix("org.")
    example = f"`orgs send {verb} 0190c5f0-7d1c-7b7e-9d57-000000000001 --expected-version 3`"
    command.__doc__ = f"{what}\n\nExample: {example}"
    app.command(verb)(command)
    return command


delete = _on_existing("org.delete", "Delete an organization; its name becomes free.")
deactivate = _on_existing(
    "org.deactivate", "Deactivate an organization: until it is reactivated, only reactivate and delete are accepted."
)
reactivate = _on_existing("org.reactivate", "Reactivate an organization.")
restore = _on_existing("org.restore", "Restore a deleted organization as it was; its name must still be free.")

for fact in (reference.membership, reference.partnership, reference.staff):
    app.command()(fact)


def _fields(**given: Any) -> dict[str, Any]:
    return {name: content for name, content in given.items() if content is not None}


def _address(**lines: str | None) -> dict[str, str] | None:
    return {name: line for name, line in lines.items() if line is not None} or None


def _with_nulls(fields: dict[str, Any], nulls: Sequence[Nullable] | None, option: str) -> dict[str, Any]:
    names = [field.value for field in nulls or ()]
    for name in names:
        if name in fields:
            raise typer.BadParameter(f"{option} {name} and a value for it cannot be combined")
    return {**fields, **dict.fromkeys(names)}


def _preconditions(
    expected_version: int | None, if_name: str | None, if_domain: str | None, if_null: Sequence[Nullable] | None
) -> dict[str, Any]:
    current = _with_nulls(_fields(name=if_name, domain=if_domain), if_null, "--if-null")
    return _fields(expected_version=expected_version, if_current=current or None)


def _send(command_type: str, body: dict[str, Any], sending: _SendOptions) -> None:
    from pydantic import ValidationError

    from org_events.commands import COMMANDS
    from org_events.results import Outcome, Result
    from org_service.cli.trouble import wrong_fields
    from org_service.operate import publish

    try:
        command = COMMANDS[command_type].model_validate(body)
    except ValidationError as error:
        shell.fail(f"nothing was sent:\n  {wrong_fields(error)}", shell.USAGE)
    settings = shell.quiet_settings()
    sender = shell.sender(settings, sending.actor)
    command_id = sending.command_id or _new_command_id()

    async def exchange() -> "Result | Sent":
        async with publish.connect(settings.kafka, timeout_s=sending.timeout_s, **sender) as client:
            if sending.wait:
                return await client.execute(command, command_id=command_id)
            return await client.send(command, command_id=command_id)

    try:
        answer = shell.run(exchange())
    except KeyboardInterrupt:
        shell.say(f"stopped; the command may have been sent: for its outcome, add --command-id {command_id}")
        raise
    if not isinstance(answer, Result):
        _print_sent(answer, settings.kafka.topics.commands, sending.as_json)
        return
    _print_result(answer, sending.as_json)
    if answer.outcome is Outcome.REJECTED:
        raise typer.Exit(shell.FAILED)
    if not answer.final:
        raise typer.Exit(shell.UNKNOWN)


def _print_sent(sent: "Sent", topic: str, as_json: bool) -> None:
    if as_json:
        shell.write_json(
            {"command_id": sent.command_id, "topic": topic, "partition": sent.partition, "offset": sent.offset}
        )
    else:
        shell.write_text(f"sent  command {sent.command_id}  {topic}[{sent.partition}] offset {sent.offset}")


def _print_result(result: "Result", as_json: bool) -> None:
    if as_json:
        shell.write_json(result.model_dump(mode="json"))
        return
    from org_service.cli import render

    shell.out().print(render.outcome(result))
