"""Which changes an operator means: the options that every command about changes has."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

if TYPE_CHECKING:
    from org_service.operate.changes import Selection
    from org_service.settings import Settings

MOMENTS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S"]

FromPositionOption = Annotated[int | None, typer.Option(min=1, help="The first journal position.", show_default=False)]
ToPositionOption = Annotated[
    int | None, typer.Option(min=1, help="The last one; the end of the journal by default.", show_default=False)
]
FromMarkOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only what came after this mark.", show_default=False)
]
ToMarkOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only what was there at this mark.", show_default=False)
]
FromTimeOption = Annotated[
    datetime | None, typer.Option(formats=MOMENTS, help="Recorded at or after this, UTC.", show_default=False)
]
ToTimeOption = Annotated[
    datetime | None, typer.Option(formats=MOMENTS, help="Recorded before this, UTC.", show_default=False)
]
OrgOption = Annotated[
    list[UUID] | None, typer.Option(help="Of this organization; may be repeated.", show_default=False)
]
OrgFileOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Of the organizations in a file, an id a line.", show_default=False),
]
TypeOption = Annotated[
    list[str] | None,
    typer.Option("--type", help="Of this type, as org.updated; may be repeated.", show_default=False),
]
MOMENT: Final = "MARK|POSITION|TIME"
AtOption = Annotated[
    str,
    typer.Option("--at", metavar=MOMENT, help="As of this: a mark, a position of the journal, or a time (UTC)."),
]
ByOption = Annotated[
    list[str] | None, typer.Option("--by", help="Changed by this actor; may be repeated.", show_default=False)
]
CommandOption = Annotated[
    list[UUID] | None, typer.Option(help="Of this command id; may be repeated.", show_default=False)
]
CommandFileOption = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Of the commands in a file, an id a line.", show_default=False),
]
RunOption = Annotated[
    list[UUID] | None,
    typer.Option("--run", help="Made by this run of `orgs apply`, `import` or `undo`; may be repeated."),
]

SourceOption = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help="Of commands that this publisher sent (ce_source), as far as orgs.commands still has them; may be "
        "repeated.",
        show_default=False,
    ),
]


def make_selection(
    *,
    from_position: int | None,
    to_position: int | None,
    from_mark: str | None,
    to_mark: str | None,
    from_time: datetime | None,
    to_time: datetime | None,
    org: list[UUID] | None,
    org_file: Path | None,
    kind: list[str] | None,
    by: list[str] | None,
    command: list[UUID] | None,
    command_file: Path | None,
    run: list[UUID] | None,
) -> "Selection":
    """What the options say; marks and sources come in with `complete`.

    Raises:
        typer.BadParameter: Two options contradict each other, or one has what can't be.
    """
    from org_service.operate.changes import Selection

    exclude_marks("position", (from_position, to_position), (from_mark, to_mark))
    return Selection(
        from_position=1 if from_position is None else from_position,
        to_position=to_position,
        from_time=utc(from_time),
        to_time=utc(to_time),
        org_ids=(*(org or ()), *ids_in(org_file)),
        types=_known(kind or ()),
        actors=tuple(by or ()),
        command_ids=(*(command or ()), *ids_in(command_file)),
        run_ids=tuple(run or ()),
    )


def exclude_marks(what: str, bounds: Sequence[object], marks: Sequence[str | None]) -> None:
    """See that neither end is given in two ways.

    Args:
        what: Gives an end beside marks, as in `--from-position`.
        bounds: What was given so, from and to; None where nothing was.
        marks: The marks that were given, from and to.

    Raises:
        typer.BadParameter: One is.
    """
    for end, bound, mark in zip(("from", "to"), bounds, marks, strict=True):
        if bound is not None and mark is not None:
            raise typer.BadParameter(f"--{end}-{what} and --{end}-mark exclude each other")


async def complete(
    settings: "Settings",
    selection: "Selection",
    *,
    from_mark: str | None,
    to_mark: str | None,
    source: list[str] | None,
) -> "Selection":
    """A selection with what has to be looked up: the positions of marks, the commands of publishers.

    Raises:
        PreconditionError: There is no such mark, or no command of these publishers.
    """
    from org_service.store.database import Database

    if source:
        from org_service.errors import PreconditionError
        from org_service.operate import sources

        sent = await sources.find_commands(settings.kafka, source, selection.from_time)
        both = [each for each in sent if not selection.command_ids or each in selection.command_ids]
        if not both:
            raise PreconditionError(f"none of these commands was sent by {', '.join(source)}.")
        selection = selection.model_copy(update={"command_ids": tuple(both)})
    if from_mark is None and to_mark is None:
        return selection
    return await selection.between_marks(Database(settings.database, "operate", direct=True), from_mark, to_mark)


def utc(moment: datetime | None) -> datetime | None:
    """A moment that was given without a time zone."""
    from datetime import UTC

    return None if moment is None else moment.replace(tzinfo=UTC)


def ids_in(path: Path | None) -> list[UUID]:
    """The ids of a file, one a line.

    Raises:
        typer.BadParameter: A line is no id, or there is none.
    """
    if path is None:
        return []
    found: list[UUID] = []
    # As spreadsheets write it: with a byte order mark. What isn't UTF-8 is no id either, and is shown as an escape.
    text = path.read_text(encoding="utf-8-sig", errors="backslashreplace")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found += [UUID(line.strip())] if line.strip() else []
        except ValueError:
            raise typer.BadParameter(f"{path}, line {number}: {line.strip()[:80]!r} is not a UUID") from None
    if not found:
        raise typer.BadParameter(f"{path} has no ids")
    return found


def _known(kinds: Iterable[str]) -> tuple[str, ...]:
    """Types of events; the part before the dot may be left out."""
    from org_events.events import EventType

    found = tuple(kind if kind.startswith("org.") else f"org.{kind}" for kind in kinds)
    known = list(EventType)
    for kind in found:
        if kind not in known:
            raise typer.BadParameter(f"--type {kind}: unknown; there are {', '.join(known)}")
    return found
