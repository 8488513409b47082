"""`orgs drill`: incidents on the local stack, to be found and mended with the commands of production."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from org_service.drilling.drill import Drill, Ground, Mark, Sight
    from org_service.drilling.session import Planted

FOLDER: Final = shell.UP_SOCKET.parent
RUNBOOK: Final = "docs/operating.md"
WAIT_S: Final = 15.0
"""For a stack that was mended a moment ago to come to rest."""


def drill(
    name: Annotated[
        str | None, typer.Argument(help="As `orgs drill` lists it; without it, all are listed.", show_default=False)
    ] = None,
    *,
    score: Annotated[bool, typer.Option("--score", help="Judge whether it is mended: exits with 0 or 1.")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, max=600, help="With --score: how long to wait until it is, in seconds.")
    ] = WAIT_S,
    hint: Annotated[bool, typer.Option("--hint", help="Show the commands that mend it.")] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Give it up: what was planted stays; `rm -r .local` begins anew.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; the list as one object a line.")] = False,
) -> None:
    """Plant an incident on the stack of `orgs up`, in another terminal, and mend it as you would in production.

    Prints what an operator would see, and nothing of the cause. Find it and mend it with the other commands; `orgs
    roles` stands for your orchestrator. Then --score judges with `orgs verify` and what belongs to the incident; a
    drill that passes is over. Named again while it is under way, a drill shows what is to be seen now.

    It damages data, so it works on servers that `orgs up` started in this folder, and on no others.

    Example: `orgs drill lost-tail`, and `orgs drill lost-tail --score`
    """
    if name is None:
        _list(as_json=as_json)
        return
    chosen, planted = _find(name), _find_planted(name)
    if forget:
        _forget(_under_way(name, planted))
    elif hint:
        _hint(chosen, _under_way(name, planted), as_json=as_json)
    elif score:
        _score(chosen, _under_way(name, planted), wait_s, as_json=as_json)
    else:
        _show(chosen, planted, as_json=as_json)


def _find(name: str) -> "Drill":
    drills = _drills()
    if name not in drills:
        raise typer.BadParameter(f"unknown drill {name!r}: {', '.join(drills)}")
    return drills[name]


def _drills() -> "Mapping[str, Drill]":
    if find_spec("org_local") is None:
        shell.fail("the local stack is not installed: install org-service[local].")
    from org_service.drilling.drills import DRILLS

    return DRILLS


def _find_planted(name: str) -> "Planted | None":
    from org_service.drilling import session

    planted = session.find(FOLDER)
    return planted if planted is not None and planted.name == name else None


def _under_way(name: str, planted: "Planted | None") -> "Planted":
    if planted is None:
        shell.fail(f"{name} is not under way: `orgs drill {name}` plants it.")
    return planted


def _list(*, as_json: bool) -> None:
    from rich import box
    from rich.table import Table

    from org_service.drilling import session

    drills, planted = _drills().values(), session.find(FOLDER)
    since = {} if planted is None else {planted.name: planted.planted_at}
    if as_json:
        for each in drills:
            shell.write_json({"name": each.name, "call": each.call, "since": since.get(each.name)})
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("drill", "under way since", "the call"):
        table.add_column(heading)
    for each in drills:
        table.add_row(each.name, since.get(each.name, ""), each.call)
    shell.out().print(table)


def _show(chosen: "Drill", planted: "Planted | None", *, as_json: bool) -> None:
    from org_service.drilling import session

    settings = shell.quiet_settings()

    async def see() -> "Sequence[Sight]":
        ground = await _ground(settings)
        if planted is not None:
            return await session.look(ground, chosen, planted.facts)
        return (await session.plant(ground, FOLDER, chosen))[1]

    if planted is None:
        shell.say(f"planting {chosen.name}: some seconds")
    sights = shell.run(see())
    if as_json:
        shell.write_json({"name": chosen.name, "call": chosen.call, "sights": [each._asdict() for each in sights]})
        return
    shell.out().print(chosen.call)
    shell.out().print("What is to be seen:" if sights else "Nothing is to be seen of it any more.")
    for each in sights:
        shell.out().print(f"  {each.where}: {each.shows}" + (f" (alert {each.alert})" if each.alert else ""))
    shell.say(
        f"Find out what it is, and mend it. `orgs drill {chosen.name} --hint` shows how, "
        f"`orgs drill {chosen.name} --score` judges."
    )


def _hint(chosen: "Drill", planted: "Planted", *, as_json: bool) -> None:
    commands, page = chosen.remedy(planted.facts), f"{RUNBOOK}#{chosen.runbook}"
    if as_json:
        shell.write_json({"name": chosen.name, "runbook": page, "commands": list(commands)})
        return
    shell.out().print(f"The runbook: {page}")
    for each in commands:
        shell.out().print(f"  {each}")


def _score(chosen: "Drill", planted: "Planted", wait_s: float, *, as_json: bool) -> None:
    from org_service.drilling import session

    settings = shell.quiet_settings()

    async def judge() -> "list[Mark]":
        return await session.judge(await _ground(settings), FOLDER, chosen, planted, wait_s)

    marks = shell.run(judge())
    passed = all(each.ok for each in marks)
    if as_json:
        shell.write_json({"name": chosen.name, "passed": passed, "marks": [each._asdict() for each in marks]})
    else:
        for each in marks:
            shell.out().print(f"{'✓' if each.ok else '✗'} {each.what}" + (f": {each.found}" if each.found else ""))
        shell.out().print(f"{chosen.name}: " + ("mended" if passed else "not mended yet"))
    if not passed:
        raise typer.Exit(shell.FAILED)


def _forget(planted: "Planted") -> None:
    from org_service.drilling import session

    session.forget(FOLDER)
    shell.say(f"{planted.name} is given up; what it planted stays as it is.")


async def _ground(settings: Any) -> "Ground":
    from org_service.drilling.drill import Ground
    from org_service.local.stack import LocalStack

    return Ground(await LocalStack.connect(shell.UP_SOCKET, settings), settings)
