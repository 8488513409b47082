"""`orgs mark` and `orgs marks`: moments with a name."""

from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_service.store.marks import Mark

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the mark.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]

app = typer.Typer(help="Marks: moments with a name, for --from-mark and --to-mark.", invoke_without_command=True)


def mark(
    name: NameArgument,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the mark.")] = "",
    actor: Annotated[str | None, typer.Option("--actor", help="Who marks; the login by default.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Give now a name, before a release or a migration, say: what came after can be found, replayed and undone by it.

    Kept are the journal's position, ends and ids of the topics, and where consumer groups stand (`orgs marks show`).

    Example: `orgs mark before-release-7 --reason "prices move to the new system"`
    """
    from org_service.operate import marks

    settings = shell.quiet_settings()
    made = shell.run(marks.make(settings, name, marked_by=actor or shell.login(), reason=reason))
    _show(made, as_json=as_json, details=False)


@app.callback()
def group(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List marks, latest first, where nothing else is asked for."""
    if context.invoked_subcommand is None:
        list_marks(as_json=as_json)


@app.command("list")
def list_marks(
    *,
    last: Annotated[int, typer.Option("--max", "-n", min=1, max=10_000, help="Show at most this many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """List marks, latest first.

    Example: `orgs marks list`
    """
    from org_service.cli import render
    from org_service.operate import marks

    found = shell.run(marks.list_latest(shell.quiet_settings(), last))
    for each in found:
        if as_json:
            shell.write_json(each._asdict())
        else:
            shell.out().print(render.mark_line(each))
    if not found:
        shell.say("there is no mark yet: `orgs mark NAME` makes one")


@app.command("show")
def show(name: NameArgument, *, as_json: JsonOption = False) -> None:
    """Show a mark: position, ends of the topics, where consumer groups stood.

    Example: `orgs marks show before-release-7`
    """
    from org_service.operate import marks

    _show(shell.run(marks.show(shell.quiet_settings(), name)), as_json=as_json)


@app.command("delete")
def delete(name: NameArgument, *, as_json: JsonOption = False) -> None:
    """Delete a mark; its name is free then. Prints what it was.

    Example: `orgs marks delete before-release-7`
    """
    from org_service.operate import marks

    deleted = shell.run(marks.delete(shell.quiet_settings(), name))
    _show(deleted, as_json=as_json)
    if not as_json:
        shell.say("deleted")


def _show(mark: "Mark", *, as_json: bool, details: bool = True) -> None:
    from org_service.cli import render

    if as_json:
        shell.write_json(mark._asdict())
        return
    shell.out().print(render.mark_line(mark))
    for line in render.mark_details(mark) if details else ():
        shell.out().print(line)
