"""`orgs tail`: watch events, results and commands."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from rich.text import Text

    from org_service.kafka.reader import Record

What = Literal["events", "results", "commands"]


def tail(
    what: Annotated[What, typer.Argument(help="The topic.")],
    *,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the first record.")] = False,
    last: Annotated[
        int, typer.Option("--last", "-n", min=0, max=100_000, help="Begin with this many earlier records.")
    ] = 0,
    follow: Annotated[bool, typer.Option(help="Follow new records until ^C.")] = True,
    org: Annotated[UUID | None, typer.Option(help="Only this organization.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line, complete except for tokens.")
    ] = False,
) -> None:
    """Watch a topic, one line per record, committed records only.

    A record that can't be read is shown by its coordinates. ^C stops.

    Example: `orgs tail events -n 20`, or `orgs tail results --from-start --no-follow --json > results.jsonl`
    """
    from org_service.operate import tail as operate

    if not (follow or from_start or last):
        raise typer.BadParameter("--no-follow alone shows nothing: add --last N or --from-start")
    settings = shell.quiet_settings()
    topics = settings.kafka.topics
    topic = {"events": topics.events, "results": topics.results, "commands": topics.commands}[what]
    view = operate.View(from_start=from_start, last=last, follow=follow, org_id=org)
    try:
        shell.run(_show(operate.watch(settings.kafka, topic, view), what, as_json))
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _show(steps: "AsyncGenerator[Sequence[Record]]", what: What, as_json: bool) -> None:
    async with aclosing(steps):
        async for records in steps:
            for record in records:
                if as_json:
                    shell.write_json(as_document(record))
                else:
                    shell.out().print(line(what, record))


def line(what: What, record: "Record") -> "Text":
    """One record in one line, whatever it holds."""
    from rich.text import Text

    from org_service.cli import render

    when = render.clock(record.timestamp)
    headers = dict(record.headers)
    try:
        if what == "events":
            shown = render.event(headers, record.value)
        elif what == "results":
            shown = render.result(record.value)
        else:
            shown = render.command(headers, record.key, record.value)
    except (render.UnreadableRecordError, LookupError, TypeError, AttributeError) as error:
        why = (
            str(error)
            if isinstance(error, render.UnreadableRecordError)
            else f"does not follow the contract ({error!r})"
        )
        shown = render.unreadable(record.topic, record.partition, record.offset, why)
    return Text.assemble((f"{when}  ", "dim"), shown)


def as_document(record: "Record") -> dict[str, Any]:
    """All of a record as JSON but its token: the value parsed where it is JSON, in Base64 where it isn't."""
    from org_events.cloudevents import AUTHORIZATION
    from org_service.cli import render
    from org_service.cli.trouble import MASK

    document: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp,
        "key": render.as_json(record.key),
        "headers": {
            name: MASK if name.lower() == AUTHORIZATION else render.as_json(content) for name, content in record.headers
        },
    }
    try:
        return document | {"value": None if record.value is None else render.document(record.value)}
    except render.UnreadableRecordError:
        return document | {"value_base64": render.base64_of(record.value or b"")}
