"""`orgs show`, `orgs history`, `orgs diff`, `orgs lost`: what the database knows."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from org_service.cli import shell
from org_service.cli.filters import MOMENT, AtOption

if TYPE_CHECKING:
    from org_service.domain.organization import StoredOrganization
    from org_service.store.database import DatabaseConnection
    from org_service.store.journal import HistoryEntry
    from org_service.store.losses import Loss

T = TypeVar("T")

OrgArgument = Annotated[
    str, typer.Argument(metavar="ORG", help="The organization id, or the exact name.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]


def show(org: OrgArgument, *, at: AtOption = "now", as_json: JsonOption = False) -> None:
    """Show an organization as it is now, or as it was deleted; with --at as it was then.

    For a name, the organization that has it now comes first, then deleted ones that had it.

    Example: `orgs show "Acme AS"`, `orgs show "Acme AS" --at 2026-11-28T03:00:00`
    """
    from org_service.cli import render
    from org_service.operate import words

    found = ask(lambda conn: _find_at(conn, org, at))
    if as_json:
        shell.write_json(_document(found[0]))
        return
    shell.out().print(render.organization(found[0]))
    for other in found[1:]:
        shell.say(f"also: {other.id}, deleted under this name {words.moment(other.updated_at)}")


def history(
    org: OrgArgument,
    *,
    last: Annotated[
        int, typer.Option("--last", "-n", min=1, max=100_000, help="Show at most this many of the latest changes.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and change.")] = False,
) -> None:
    """Show an organization's changes, oldest first: version, when, what, by whom, before → after.

    Example: `orgs history 0190c5f0-7d1c-7b7e-9d57-000000000001`
    """
    from org_service.cli import render

    async def read(conn: "DatabaseConnection") -> "tuple[StoredOrganization, list[HistoryEntry]]":
        from org_service.store import journal

        organization = (await _find(conn, org))[0]
        after_version = max(0, organization.version - last)
        return organization, await journal.read_history(conn, organization.id, last, after_version)

    organization, entries = ask(read)
    if as_json:
        for entry in entries:
            shell.write_json(entry._asdict())
        return
    shell.say(f"{organization.name}  {organization.id}")
    if entries and entries[0].version > 1:
        shell.say(f"{entries[0].version - 1} earlier changes omitted; --last shows more")
    for entry in entries:
        shell.out().print(render.change(entry))


def diff(
    *,
    since: Annotated[str, typer.Option("--from", metavar=MOMENT, help="As `--at` of `orgs show`.", show_default=False)],
    until: Annotated[str, typer.Option("--to", metavar=MOMENT, help="Likewise.")] = "now",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and organization.")] = False,
) -> None:
    """Compare all organizations at two moments: created, changed (before → after), deleted, restored; then the counts.

    By position of the last change of each. What was changed and changed back meanwhile is not shown. It reads the
    journal between the two, with bounded memory.

    Example: `orgs diff --from before-release-7`
    """
    from collections import Counter

    from org_service.cli import render

    counts: Counter[str] = Counter()

    async def read(conn: "DatabaseConnection") -> tuple[int, int]:
        from org_service.operate import past

        before, after = [await past.find_position(conn, moment) for moment in (since, until)]
        if before > after:
            shell.fail(f"--from is position {before:,}, which is behind --to, position {after:,}.", shell.USAGE)
        async for found in past.compare(conn, before, after):
            for each in found:
                counts[each.kind] += 1
                if as_json:
                    shell.write_json(each._asdict())
                else:
                    shell.out().print(render.difference(each))
        return before, after

    before, after = ask(read)
    said = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("created", "changed", "deleted", "restored"))
    shell.say(f"{said} between positions {before:,} and {after:,}")


def lost(
    *,
    last: Annotated[
        int, typer.Option("--max", "-n", min=1, max=10_000, help="Show at most this many, latest first.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List commands that orgs.commands lost before a worker read them: partition, offsets, reason, and when it was
    noticed.

    `expired`: deleted before it was read. `truncated`: brokers lost the end of the log; what was decided stays decided,
    but later commands may be gone. `recreated`: the topic was deleted and recreated. Publishers may send their
    commands again under the same ids, which is always safe.

    Example: `orgs lost`
    """

    async def read(conn: "DatabaseConnection") -> "list[Loss]":
        from org_service.store import losses

        return await losses.list_losses(conn, last)

    found = ask(read)
    for loss in found:
        if as_json:
            shell.write_json(loss._asdict())
        else:
            to = "?" if loss.to_offset is None else loss.to_offset
            moment, at = f"{loss.noticed_at:%Y-%m-%d %H:%M:%S}", f"{loss.topic}[{loss.partition}]"
            shell.write_text(f"{moment}  {at}  {loss.from_offset} to {to}  {loss.why}")
    if not found:
        shell.say("nothing was lost")


def ask(question: "Callable[[DatabaseConnection], Awaitable[T]]") -> T:
    """Ask the database with a reader's rights."""
    from org_service.store.database import Database

    settings = shell.quiet_settings()

    async def asking() -> T:
        database = Database(settings.database, "reader", direct=True)
        async with database.connect() as conn:
            return await question(conn)

    return shell.run(asking())


async def _find_at(conn: "DatabaseConnection", org: str, at: str) -> "list[StoredOrganization]":
    from org_service.operate import past

    found = await _find(conn, org)
    if at == past.NOW:
        return found
    position = await past.find_position(conn, at)
    then = await past.find_states(conn, [found[0].id], position)
    if not then:
        shell.fail(f"{found[0].id} was not there yet at position {position:,}.")
    return then


async def _find(conn: "DatabaseConnection", org: str) -> "list[StoredOrganization]":
    from org_service.store import organizations

    found = await organizations.find_by_id_or_name(conn, org)
    if not found:
        shell.fail(f"no organization has, or ever had, the id or name {org!r}.")
    return found


def _document(organization: "StoredOrganization") -> dict[str, Any]:
    import orjson

    from org_service.domain.organization import to_json

    document: dict[str, Any] = orjson.loads(to_json(organization))
    return document | {"deleted_at": organization.deleted_at}
