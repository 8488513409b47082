"""`orgs roles`: what an orchestrator does to processes, done to the roles of `orgs up`."""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_service.local.roles import Standing
    from org_service.local.stack import LocalStack


class Role(StrEnum):
    """Which role; typer reads no list of literals."""

    WORKER = "worker"
    RELAY = "relay"
    EDGE = "edge"
    OPERATE = "operate"


RolesArgument = Annotated[list[Role], typer.Argument(help="Which.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line and role.")]
READY_S: Final = 60.0
"""For roles that were started, on a very busy machine; what they wait for is said then."""

app = typer.Typer(
    help="The roles of `orgs up`: stop, start and replace each, as an orchestrator does in production.",
    invoke_without_command=True,
)


@app.callback()
def group(context: typer.Context) -> None:
    """List the roles, where nothing else is asked for."""
    if context.invoked_subcommand is None:
        list_roles()


@app.command("list")
def list_roles(*, as_json: JsonOption = False) -> None:
    """List the roles of `orgs up`: whether each runs, as which release, and where its health pages are.

    Example: `orgs roles list`
    """

    async def nothing(_stack: "LocalStack") -> None:
        pass

    _change(nothing, as_json=as_json)


@app.command("stop")
def stop(roles: RolesArgument, *, as_json: JsonOption = False) -> None:
    """Drain and end roles, as SIGTERM does.

    Example: `orgs roles stop worker edge`
    """
    _change(lambda stack: stack.stop(*roles), as_json=as_json)


@app.command("start")
def start(roles: RolesArgument, *, as_json: JsonOption = False) -> None:
    """Start roles that don't run, each as the release that it was, and wait until they are ready.

    Exits with 1 if one is not ready within a minute, and says what it waits for.

    Example: `orgs roles start worker relay`
    """
    _change(lambda stack: stack.start(*roles), as_json=as_json, ready=roles)


@app.command("deploy")
def deploy(roles: RolesArgument, *, as_json: JsonOption = False) -> None:
    """Replace roles by the release of this folder, and wait until they are ready: a roll-out, or a roll-back.

    Exits with 1 if one is not ready within a minute, and says what it waits for.

    Example: `orgs roles deploy worker`
    """
    _change(lambda stack: stack.deploy(roles), as_json=as_json, ready=roles)


def _change(change: "Callable[[LocalStack], Awaitable[None]]", *, as_json: bool, ready: Sequence[str] = ()) -> None:
    from org_service.drilling.drill import Ground
    from org_service.drilling.looking import wait_until_ready
    from org_service.local.stack import LocalStack

    settings = shell.quiet_settings()

    async def do() -> "tuple[list[Standing], list[str]]":
        stack = await LocalStack.connect(shell.UP_SOCKET, settings)
        await change(stack)
        unready = await wait_until_ready(Ground(stack, settings), ready, READY_S) if ready else []
        return list(await stack.roles()), unready

    found, unready = shell.run(do())
    _show(found, as_json=as_json)
    if unready:
        shell.fail("not ready yet: " + "; ".join(unready))


def _show(found: "list[Standing]", *, as_json: bool) -> None:
    from rich import box
    from rich.table import Table

    if as_json:
        for each in found:
            shell.write_json(each._asdict())
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("role", "state", "release", "health", "why"):
        table.add_column(heading, overflow="fold")
    for each in found:
        table.add_row(*each)
    shell.out().print(table)
