"""A command's way, and the last commands of an organization, as lines."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich.text import Text

from org_service.cli.render import who, word
from org_service.operate.words import moment, printable

if TYPE_CHECKING:
    from org_service.operate.hops import Hop, Trace
    from org_service.operate.trace import Line


def trace(found: "Trace") -> Iterator[Text]:
    """A line for the command, one for each hop, one for each note."""
    yield Text.assemble(
        word(found.status), (f"  command {found.command_id}  organization {found.org_id or '?'}", "dim")
    )
    for hop in found.hops:
        yield _hop(hop)
    for note in found.notes:
        yield Text(f"  {note}", "yellow")


def _hop(hop: "Hop") -> Text:
    return Text.assemble(
        (f"  {hop.name:<9}", "bold"),
        (f"{_clock(hop.at):<13}", "dim"),
        f"{'' if hop.ms is None else f'{hop.ms:+,.1f} ms':>13}  ",
        "" if hop.topic is None else f"{hop.topic}[{hop.partition}] offset {hop.offset}  ",
        printable(hop.said),
    )


def _clock(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]


def line(found: "Line") -> Text:
    """One command: `position 40,213  2026-11-28 …  org.update  applied 200  v3  by alice`."""
    return Text.assemble(
        ("parked" if found.position is None else f"position {found.position:,}", "bold"),
        (f"  {moment(found.recorded_at)}  ", "dim"),
        found.command_type or "",
        "  ",
        word(found.outcome),
        "" if found.code is None else f" {found.code}",
        "" if found.version is None else f"  v{found.version}",
        "" if found.why is None else f"  {printable(found.why)}",
        who(found.actor),
        (f"  command {found.command_id or '?'}", "dim"),
    )
