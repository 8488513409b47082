"""`orgs apply` and `orgs import`: organizations become what a file says."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from org_service.cli import operations, shell

if TYPE_CHECKING:
    from org_service.operate.operation import Tool
    from org_service.operate.organizations_file import Format

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, show_default=False)
]
FormatOption = Annotated[
    Literal["jsonl", "csv"] | None, typer.Option("--format", help="Taken from the file's name by default.")
]


def apply(
    file: FileArgument,
    *,
    file_format: FormatOption = None,
    execute: operations.ExecuteOption = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Plan to make organizations what a file says of them: JSON lines or CSV; --execute does it.

    JSON lines: `{"id": "…", "name": "Acme", "domain": "acme.com", "primary_address": {"line1": …, "city": …}}`.
    CSV: a header line with some of id, name, domain, line1, line2, city, region, postal_code, country; in UTF-8.
    It is what `orgs export` writes. A line without an id means the organization whose id is derived from its name.

    What is new is created, what differs is updated. A field, or column, that the file leaves out stays as it is; null,
    or an empty cell, clears it. Organizations that the file doesn't name stay as they are: nothing is deleted. Lines
    in conflict (a name that another one has, an organization that is deleted or deactivated) are listed and left out;
    so is whatever changed between plan and run. Nobody else can run the plan: the file is here.

    Exits with 1 if it ran and a line was left out.

    Example: `orgs apply organizations.csv`
    """
    settings = shell.quiet_settings()
    path, chosen = _kept(file, file_format)

    async def make() -> "Tool":
        from org_service.operate.apply_file import ApplyFile

        return await ApplyFile.make(settings, path, chosen)

    operations.offer(
        settings,
        make,
        execute=execute,
        detach=False,
        reason=reason,
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )


def import_file(
    file: FileArgument,
    *,
    file_format: FormatOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only plan; send nothing.")] = False,
    reason: operations.ReasonOption = "",
    rate_per_second_max: operations.RateOption = None,
    actor: operations.ActorOption = None,
    as_json: operations.JsonOption = False,
) -> None:
    """Create an organization for each line of a file, at once: `orgs apply` that creates only.

    What exists already stays as it is. Lines that can't be sent or are in conflict are reported with their number and
    the reason; all others are applied. Importing the same file again is harmless. ^C pauses it, and so does an end of
    this process: `orgs runs resume ID` continues.

    Exits with 0 if every line is there, 1 if one is not.

    Example: `orgs import organizations.jsonl`
    """
    settings = shell.quiet_settings()
    path, chosen = _kept(file, file_format)

    async def make() -> "Tool":
        from org_service.operate.apply_file import ApplyFile

        return await ApplyFile.make(settings, path, chosen, only_create=True)

    operations.offer(
        settings,
        make,
        execute=not dry_run,
        detach=False,
        reason=reason or f"import of {file.name}",
        rate_per_second_max=rate_per_second_max,
        actor=actor,
        as_json=as_json,
    )


def _kept(file: Path, file_format: "Format | None") -> "tuple[Path, Format]":
    """A file that can be read again: what comes through a pipe is copied into one."""
    from org_service.operate import organizations_file

    chosen = file_format or organizations_file.format_of(file)
    if file.is_file():
        return file.resolve(), chosen  # not /dev/stdin, which is another file when the plan is run
    with (
        file.open("rb") as content,
        tempfile.NamedTemporaryFile(prefix="orgs-", suffix=f".{chosen}", delete=False) as copy,
    ):
        shutil.copyfileobj(content, copy)
    shell.say(f"{file} can be read but once: its content is kept in {copy.name}")
    return Path(copy.name), chosen
