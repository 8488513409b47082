"""`orgs export`: all organizations, as of one moment."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from org_service.cli import shell
from org_service.cli.filters import AtOption

if TYPE_CHECKING:
    from org_service.domain.organization import StoredOrganization
    from org_service.settings import Settings

ToLine = Callable[["StoredOrganization"], str]


def export(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", dir_okay=False, help="Where to; standard output by default.", show_default=False
        ),
    ] = None,
    *,
    file_format: Annotated[
        Literal["jsonl", "csv"] | None,
        typer.Option("--format", help="Taken from the file's name by default; jsonl on standard output."),
    ] = None,
    at: AtOption = "now",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Write all organizations as of one moment, in the format that `orgs apply` reads: applied again, none changes.

    Deleted ones are left out; whether one is deactivated is not in the file. It is read in one snapshot, with bounded
    memory, while the service works. The file appears when it is complete. Standard error says of which position of the
    journal it is. With --at they are as the journal says they were then: applied, such a file takes later changes back
    but for what was created or deleted since (`orgs undo` takes those back, too).

    Example: `orgs export organizations.csv`, `orgs export --at before-release-7 then.jsonl`
    """
    from org_service.operate import organizations_file

    chosen = file_format or ("jsonl" if file is None else organizations_file.format_of(file))
    settings = shell.quiet_settings()
    if file is not None and file.is_file() and not force:
        shell.fail(f"{file} exists already: name another file, or say --force.", shell.USAGE)
    with _writing(file) as write:
        written, position = shell.run(_export(settings, at, write, *_format(chosen)))
    where = "" if file is None else f" to {file}"
    shell.say(f"{written:,} organizations as of position {position:,}{where}")


async def _export(
    settings: "Settings", at: str, write: Callable[[str], None], header: str | None, to_line: ToLine
) -> tuple[int, int]:
    from org_service.operate.export import open_snapshot

    written = 0
    async with open_snapshot(settings, at) as snapshot:
        if header is not None:
            write(header)
        async for page in snapshot.pages:
            if page:
                write("\n".join(map(to_line, page)))
            written += len(page)
    return written, snapshot.position


def _format(chosen: Literal["jsonl", "csv"]) -> tuple[str | None, ToLine]:
    """The first line, and what makes the others."""
    from org_service.operate import organizations_file

    if chosen == "jsonl":
        return None, organizations_file.to_json_line
    return organizations_file.CSV_HEADER, organizations_file.to_csv_line


@contextmanager
def _writing(file: Path | None) -> Generator[Callable[[str], None]]:
    """Writes text as lines, in UTF-8; a file has its name once it is complete."""
    if file is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="strict")  # whatever the locale: it is read again as UTF-8
        yield shell.write_text
        return
    if file.exists() and not file.is_file():  # a device or pipe, which nothing may take the place of
        with file.open("w", encoding="utf-8", newline="") as content:
            yield lambda text: print(text, file=content)
        return
    file = file.resolve()
    part = file.with_name(f".{file.name}.{token_hex(4)}.part")  # its own: two may export to one file
    try:
        with part.open("w", encoding="utf-8", newline="") as content:
            yield lambda text: print(text, file=content)
            content.flush()
            os.fsync(content.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
