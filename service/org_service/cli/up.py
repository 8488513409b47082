"""`orgs up`: the whole stack in one terminal.

Kafka and Postgres are children that end with this process, however it ends; worker, relay and edge run inside it, as
`orgs serve --role all` does. Refused: a process for each role, as in production, which `make demo` and the tests have:
it would need a guard of its own against orphans and a way to mix the logs, and shows a developer nothing more.
"""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from org_service.cli import shell
from org_service.cli.serve import ROLES, run_roles

if TYPE_CHECKING:
    from org_local import Issuer, Stack
    from org_service.settings import Settings

STAFF: Final = "local-staff"
"""Whom the token in `stack.env` names."""
STAFF_TOKEN_TTL_S: Final = 30 * 24 * 3_600
CHECK_INTERVAL_S: Final = 1.0
"""How often to see whether the servers still run."""


def up(
    *,
    data: Annotated[
        Path, typer.Option(help="Where the data live, kept between runs.", file_okay=False)
    ] = shell.STACK_ENV.parent,
) -> None:
    """Start Kafka, Postgres, worker, relay and edge, all in this terminal; ^C stops everything in order.

    Needs no Docker, Java or root. Creates tables and topics where they are missing, and writes `.local/stack.env`, by
    which other commands and programs find the stack. Servers that the environment names are used instead of own ones.

    Example: `orgs up`, and in another terminal `orgs tail events`
    """
    try:
        import org_local
        from org_local import ports
    except ModuleNotFoundError:
        shell.fail("the local stack isn't installed: install org-service[local].")
    from org_service.cli.trouble import masked_url
    from org_service.telemetry import set_up_logging

    shell.load_settings()  # what is written wrongly is told before anything starts
    try:
        with org_local.start(data, progress=shell.say) as stack, _named() as name:
            issuer = org_local.Issuer.open(data)
            name(_servers(stack, issuer))
            settings = shell.load_settings()
            set_up_logging(settings.log.model_copy(update={"format": "console"}))
            for busy in ("org_service.worker.applier", "org_service.relay.relay"):
                logging.getLogger(busy).setLevel(logging.DEBUG)  # one line a batch, so that one sees commands pass
            port = settings.edge.port or ports.pick(None, set())
            settings = settings.model_copy(update={"edge": settings.edge.model_copy(update={"port": port})})
            url = f"http://{settings.edge.host}:{port}"
            token = issuer.token(STAFF, audience=settings.auth.audience, ttl_s=STAFF_TOKEN_TTL_S)
            name(_servers(stack, issuer) | {"ORGS_API_URL": url, "ORGS_TOKEN": token})
            _prepare(settings)
            shell.say(f"Kafka     {stack.bootstrap_servers}")
            shell.say(f"Postgres  {masked_url(stack.database_url)}")
            shell.say(f"HTTP      {url}/docs, MCP {url}/mcp")
            shell.say("ready: try `orgs send create --name Acme` in another terminal; ^C stops")
            with _watched(stack):
                run_roles(settings, ROLES)
            stack.check()
            shell.say("stopping Kafka and Postgres")
    except org_local.LocalStackError as error:
        shell.fail(str(error))


def _servers(stack: "Stack", issuer: "Issuer") -> dict[str, str]:
    """What other commands and programs need to know, as variables; publishers are trusted on one's own machine."""
    from org_local.stack import BOOTSTRAP_SERVERS_VARIABLE, DATABASE_URL_VARIABLE

    return {
        BOOTSTRAP_SERVERS_VARIABLE: stack.bootstrap_servers,
        DATABASE_URL_VARIABLE: stack.database_url,
        "ORGS_AUTH__COMMANDS": "trusted",
        "ORGS_AUTH__ISSUER": issuer.name,
        "ORGS_AUTH__JWKS_FILE": str(issuer.jwks_file),
    }


def _prepare(settings: "Settings") -> None:
    """Tables and topics, where they are missing, and whoever holds the token of `stack.env` as staff."""
    from org_events.reference import Staff
    from org_service.operate import reference, topics
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
        await reference.publish(settings.kafka, [reference.Entry(Staff(user_id=STAFF))])

    asyncio.run(prepare())


@contextlib.contextmanager
def _named() -> Generator[Callable[[dict[str, str]], None]]:
    """Say in `.local/stack.env` where things are, for as long as they are there; only its owner can read the token."""
    path = shell.STACK_ENV
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")

    def name(variables: dict[str, str]) -> None:
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text("".join(f"{variable}={value}\n" for variable, value in variables.items()))
        fresh.replace(path)

    try:
        yield name
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
