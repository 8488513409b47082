"""`orgs up`: the whole stack in one terminal.

Kafka and Postgres are children that end with this process, however it ends; worker and relay run inside it, as
`orgs serve --role all` does. Refused: a process for each role, as in production, which `make demo` and the tests have:
it would need a guard of its own against orphans and a way to mix the logs, and shows a developer nothing more.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from org_service.cli import shell
from org_service.cli.serve import run_roles

if TYPE_CHECKING:
    from org_local import Stack
    from org_service.settings import Settings

CHECK_INTERVAL_S: Final = 1.0
"""How often to see whether the servers still run."""


def up(
    *,
    data: Annotated[
        Path, typer.Option(help="Where the data live, kept between runs.", file_okay=False)
    ] = shell.STACK_ENV.parent,
) -> None:
    """Start Kafka, Postgres, worker and relay, all in this terminal; ^C stops everything in order.

    Needs no Docker, Java or root. Creates tables and topics where they are missing, and writes `.local/stack.env`, by
    which other commands and programs find the stack. Servers that the environment names are used instead of own ones.

    Example: `orgs up`, and in another terminal `orgs tail events`
    """
    try:
        import org_local
    except ModuleNotFoundError:
        shell.fail("the local stack isn't installed: install org-service[local].")
    from org_service.telemetry import set_up_logging

    try:
        with org_local.start(data, progress=shell.say) as stack, _named(stack):
            settings = shell.load_settings()
            set_up_logging(settings.log.model_copy(update={"format": "console"}))
            _prepare(settings)
            shell.say(f"Kafka     {stack.bootstrap_servers}")
            shell.say(f"Postgres  {stack.database_url}")
            shell.say("ready: try `orgs send create --name Acme` in another terminal; ^C stops")
            with _watched(stack):
                run_roles(settings, ("worker", "relay"))
            stack.check()
            shell.say("stopping Kafka and Postgres")
    except org_local.LocalStackError as error:
        shell.fail(str(error))


def _prepare(settings: "Settings") -> None:
    """Tables and topics, where they are missing."""
    from org_service.operate import topics
    from org_service.store import migrate

    async def prepare() -> None:
        await migrate.upgrade(settings.database)
        plans = await topics.plan(settings.kafka)
        harmful = [each.advice for plan in plans for each in plan.differences if each.harmful]
        if harmful:
            shell.fail("\n  ".join(harmful))
        missing = [plan.spec for plan in plans if not plan.exists]
        if missing:
            await topics.create(settings.kafka, missing)

    asyncio.run(prepare())


@contextlib.contextmanager
def _named(stack: "Stack") -> Generator[None]:
    """Say in `.local/stack.env` where the servers are, for as long as they are there."""
    from org_local.stack import BOOTSTRAP_SERVERS_VARIABLE, DATABASE_URL_VARIABLE

    path = shell.STACK_ENV
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(
        f"{BOOTSTRAP_SERVERS_VARIABLE}={stack.bootstrap_servers}\n{DATABASE_URL_VARIABLE}={stack.database_url}\n"
    )
    fresh.replace(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _watched(stack: "Stack") -> Generator[None]:
    """End the roles, as SIGTERM does, when a server ends by itself: they would wait for it for ever."""
    from org_local import LocalStackError

    done = threading.Event()

    def watch() -> None:
        while not done.wait(CHECK_INTERVAL_S):
            try:
                stack.check()
            except LocalStackError:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch, name="watch the servers", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
