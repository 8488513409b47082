"""`orgs trace`: what became of a command."""

from typing import Annotated

import typer

from org_service.cli import shell


def trace(
    what: Annotated[
        str,
        typer.Argument(
            metavar="COMMAND_ID|POSITION|PARTITION:OFFSET|ORG_ID",
            help="A command; or an organization, for its last commands.",
            show_default=False,
        ),
    ],
    *,
    last: Annotated[
        int, typer.Option("--last", "-n", min=1, max=1_000, help="Of an organization at most so many commands.")
    ] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; of an organization one object a line.")] = False,
) -> None:
    """Follow a command: record, token, rule, journal, event, state, result; each with where it is, when, and how long
    after the one before.

    Also one that is parked, not read yet, expired, rejected or a duplicate (by PARTITION:OFFSET of orgs.commands). Of
    an organization it lists the last commands: changes of any age, rejected ones of the last 200,000 positions. Times
    are those of broker, worker and relay, so between two machines their clocks count.

    Exits with 1 if nothing is known of it.

    Example: `orgs trace 0190c5f0-7d1c-7b7e-9d57-000000000001`
    """
    from org_service.cli import render_trace
    from org_service.operate.hops import Trace
    from org_service.operate.trace import trace as follow

    found = shell.run(follow(shell.quiet_settings(), what, last))
    if isinstance(found, Trace):
        if as_json:
            shell.write_json(found._asdict() | {"hops": [each._asdict() for each in found.hops]})
            return
        for line in render_trace.trace(found):
            shell.out().print(line)
        return
    for each in found:
        if as_json:
            shell.write_json(each._asdict())
        else:
            shell.out().print(render_trace.line(each))
