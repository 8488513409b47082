"""`orgs status`: how everything is, on one screen."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Final

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_service.settings import Settings

WATCH_INTERVAL_S: Final = 2.0
"""Between two looks, so that the servers don't notice whoever forgets the window."""


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until ^C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; with --watch one object a line.")] = False,
) -> None:
    """Show on one screen how everything is: lags, leader, breaker, what is parked, runs, time to loss.

    Lags are those of every consumer group on our topics, the workers' partition by partition, worst first. Time to loss
    is when retention may take the first record that a group has not read. The breaker is what the health pages say that
    the settings name (ORGS_WORKER__HOST and __PORT).

    Never waits long for a server that is away: what could not be had is said, and the rest is shown. Exits with 0 if
    Kafka and Postgres said everything, with 3 otherwise.

    Example: `orgs status --watch`
    """
    settings = shell.quiet_settings()
    complete = shell.run(_watch(settings, as_json=as_json) if watch else _once(settings, as_json=as_json))
    if not complete:
        raise typer.Exit(shell.UNKNOWN)


async def _once(settings: "Settings", *, as_json: bool) -> bool:
    from org_service.cli import render_status
    from org_service.operate.status import see

    found = await see(settings)
    if as_json:
        shell.write_json(render_status.document(found))
    else:
        shell.out().print(render_status.screen(found, settings.worker_group))
    return not found.troubles


async def _watch(settings: "Settings", *, as_json: bool) -> bool:
    from rich.live import Live

    from org_service.cli import render_status
    from org_service.operate.status import see

    if as_json or not shell.out().is_terminal:
        while True:
            await _once(settings, as_json=as_json)
            await asyncio.sleep(WATCH_INTERVAL_S)
    with Live(console=shell.out(), screen=True, auto_refresh=False) as live:
        while True:
            live.update(render_status.screen(await see(settings), settings.worker_group), refresh=True)
            await asyncio.sleep(WATCH_INTERVAL_S)
