"""What an operator's filters have in common: moments, and files of ids."""

from datetime import datetime
from pathlib import Path
from uuid import UUID

import typer

MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S"]


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
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            found += [UUID(line.strip())] if line.strip() else []
        except ValueError:
            raise typer.BadParameter(f"{path}, line {number}: {line.strip()[:80]!r} is not a UUID") from None
    if not found:
        raise typer.BadParameter(f"{path} has no ids")
    return found
