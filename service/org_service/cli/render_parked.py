"""Parked records as lines."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from rich.text import Text

from org_service.operate.words import make_printable, moment, printable, value

if TYPE_CHECKING:
    from org_service.store.parked_queues import ParkedCount, ParkedGroup, ParkedRecord


def count_line(count: "ParkedCount") -> Text:
    """How many are parked for one reason: `1,001  handler raised  KeyError in _update, line 163`."""
    return Text.assemble(
        (f"{count.records:>9,}  ", "bold"),
        count.reason.replace("_", " "),
        "" if count.state == "open" else f"  {count.state}",
        ("" if count.cause is None else f"  {printable(count.cause)}", "dim"),
    )


def record_line(record: "ParkedRecord") -> Text:
    """One parked record: why, whose, where from."""
    return Text.assemble(
        (f"#{record.id}".rjust(5) + "  ", "bold"),
        (f"{moment(record.recorded_at)}  ", "dim"),
        f"{record.reason.replace('_', ' '):<14}  ",
        f"{record.topic}[{record.partition}] offset {record.offset}",
        f"  organization {record.org_id or '?'}  command {record.command_id or '?'}",
        "  exhausted" if record.exhausted else "" if record.state == "open" else f"  {record.state}",
        (f"  {printable(record.detail)}", "dim"),
        "" if record.value_bytes is None else (f"  {record.value_bytes:,} bytes, SHA-256 {record.value_sha256}", "dim"),
    )


def group_line(name: str, group: "ParkedGroup") -> Text:
    """What is parked for one cause: `1f0c9a3e  1,001  handler raised  KeyError in _update, line 163`."""
    held = "" if not group.organizations else f"  holds up {group.organizations:,} organizations"
    waiting = "" if not group.waiting else f", {group.waiting:,} commands wait behind"
    return Text.assemble(
        (f"{name}  {group.records:>9,}  ", "bold"),
        group.reason.replace("_", " "),
        ("  exhausted", "red") if group.exhausted else "",
        f"  {printable(group.cause)}  in {group.topic}{held}{waiting}",
        (f"  oldest {moment(group.oldest)}", "dim"),
    )


def contents(described: Mapping[str, Any]) -> Iterator[Text]:
    """A parked record, a line for each thing that is known of it."""
    for name, content in described.items():
        if name == "headers":
            for header, text in content.items():
                yield Text.assemble((f"{'header':<18}", "dim"), printable(f"{header}: {text}"))
        elif name == "value":
            shown = content if isinstance(content, str) else orjson.dumps(content).decode()
            yield Text.assemble((f"{name:<18}", "dim"), make_printable(shown))
        elif content is not None:
            yield Text.assemble((f"{name.replace('_', ' '):<18}", "dim"), value(content))
