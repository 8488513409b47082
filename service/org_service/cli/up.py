"""`orgs up`: the whole stack in one terminal.

Kafka and Postgres are children that end with this process, however it ends; the roles run inside it, and each can be
stopped, started and replaced while the others go on (`orgs roles`). Declined: a process for each role, as in
production, which `make demo` and the tests have: it would need a guard of its own against orphans and a way to mix the
logs, and shows a developer nothing more.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar
from urllib.parse import urlsplit

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_local import Issuer, Stack
    from org_service.settings import Settings

T = TypeVar("T")

TOKEN: Final = "ORGS_TOKEN"  # noqa: S105 - a name
STAFF_TOKEN_TTL_S: Final = 30 * 24 * 3_600
CHECK_INTERVAL_S: Final = 1.0
"""How often to see whether the servers still run."""
READY_POLL_S: Final = 0.1
"""How often to ask the roles whether they are ready: a person who waits doesn't notice it, nor does the machine."""
READY_TIMEOUT_S: Final = 5.0
"""For one answer; each check behind it is bounded by less."""
PATIENCE_S: Final = 5.0
"""A start takes about three; after that the user is told what it waits for, and again as often."""


def up(
    *,
    data: Annotated[
        Path, typer.Option(help="The data folder, kept between runs.", file_okay=False)
    ] = shell.STACK_ENV.parent,
    trusted: Annotated[
        bool,
        typer.Option(
            "--trusted",
            help="On servers that the environment names: trust their publishers, and accept tokens of this "
            "folder's issuer. Never on servers that others use.",
        ),
    ] = False,
) -> None:
    """Start Kafka, Postgres, worker, relay and edge, all in this terminal; ^C stops everything in order.

    Needs no Docker, Java or root. Creates missing tables and topics, and writes `.local/stack.env`, where other
    commands and programs find the stack. Servers that the environment names are used instead of starting new ones;
    ORGS_AUTH__... or --trusted says who may act there, and nobody is made staff on them.

    Example: `orgs up`, and in another terminal `orgs tail events`
    """
    try:
        import org_local
    except ModuleNotFoundError:
        shell.fail("the local stack is not installed: install org-service[local].")
    from org_service.cli.trouble import masked_url
    from org_service.local.host import with_ports
    from org_service.telemetry.logs import set_up_logging

    shell.load_settings()  # mistakes in settings are reported before anything starts
    try:
        with org_local.start(data, progress=shell.say) as stack:
            is_trusted = _is_trusted(stack, trusted)
            with _named() as name:
                issuer = org_local.Issuer.open(data)
                servers = _servers(stack) | (_trust(issuer) if is_trusted else {})
                name(servers)
                settings = shell.load_settings()
                set_up_logging(settings.log.model_copy(update={"format": "console"}))
                for busy in ("org_service.apply.applier", "org_service.relay.relay"):
                    logging.getLogger(busy).setLevel(logging.DEBUG)  # one line a batch, so that one sees commands pass
                settings = with_ports(settings)
                url = f"http://{settings.edge.host}:{settings.edge.port}"
                servers["ORGS_API_URL"] = url
                if stack.is_ours:
                    servers[TOKEN] = _staff_token(issuer, settings)
                    servers |= {"ORGS_CONSOLE__ENABLED": "true", "ORGS_CONSOLE__LINKS": "true"}
                name(servers)
                settings = _with_console(settings) if stack.is_ours else settings
                _prepare(settings, make_staff=stack.is_ours)
                shell.say(f"Kafka     {stack.bootstrap_servers}")
                shell.say(f"Postgres  {masked_url(stack.database_url)}")
                shell.say(f"HTTP      {url}/docs, MCP {url}/mcp")
                if settings.console.enabled:
                    shell.say(f"Console   {url}/console; `orgs console` prints a link that signs you in")
                with _beside(_watch, stack), _beside(announce, settings):
                    _run_roles(settings, stack)
                stack.check()
                shell.say("stopping Kafka and Postgres")
    except org_local.LocalStackError as error:
        shell.fail(str(error))


def _run_roles(settings: "Settings", stack: "Stack") -> None:
    """Run all roles until a signal; each can be stopped and started from another terminal where the stack is ours."""
    import uvloop

    from org_service import runtime
    from org_service.drilling.builds import RELEASES
    from org_service.local.host import Host
    from org_service.local.roles import Roles

    async def run() -> None:
        stop = asyncio.Event()
        runtime.set_on_signals(stop)
        roles = Roles(settings, RELEASES, shell.say)
        async with contextlib.AsyncExitStack() as opened:
            if stack.is_ours:
                await opened.enter_async_context(Host(settings, stack, roles).listening(shell.UP_SOCKET))
            await roles.run(stop)

    uvloop.run(run())


def _is_trusted(stack: "Stack", trusted: bool) -> bool:
    """Whether publishers are believed, and this folder's issuer with them: on one's own servers, or because asked to.

    Raises:
        typer.Exit: They are somebody else's, and nobody said who may act there.
    """
    if stack.is_ours or trusted:
        return True
    if "auth" not in shell.load_settings().model_fields_set:
        shell.fail(
            "the environment names servers that were not started here: set ORGS_AUTH__... to say who may act on "
            "them (docs/access.md), or trust everybody who can publish there: `orgs up --trusted`. Nothing was "
            "changed.",
            shell.USAGE,
        )
    return False


def _servers(stack: "Stack") -> dict[str, str]:
    """Where other commands and programs find the servers, as variables."""
    from org_local.stack import BOOTSTRAP_SERVERS_VARIABLE, DATABASE_URL_VARIABLE

    return {BOOTSTRAP_SERVERS_VARIABLE: stack.bootstrap_servers, DATABASE_URL_VARIABLE: stack.database_url}


def _trust(issuer: "Issuer") -> dict[str, str]:
    """Who may act, as variables: publishers are trusted on one's own machine."""
    return {
        "ORGS_AUTH__COMMANDS": "trusted",
        "ORGS_AUTH__ISSUER": issuer.name,
        "ORGS_AUTH__JWKS_FILE": str(issuer.jwks_file),
    }


def _prepare(settings: "Settings", *, make_staff: bool) -> None:
    """Tables and topics, where they are missing, and as staff whoever holds the token of `stack.env`, if asked to."""
    from org_events.reference import Staff
    from org_service.kafka import topics
    from org_service.local import STAFF
    from org_service.operate import reference
    from org_service.store import migrate

    async def prepare() -> None:
        await migrate.upgrade(settings.database)
        plans = await topics.plan(settings.kafka, settings.relay.name)
        shell.fail_if_harmful(plans)
        missing = [plan.spec for plan in plans if not plan.exists]
        if missing:
            await topics.create(settings.kafka, missing)
        if make_staff:
            await reference.publish(settings.kafka, [reference.FactEntry(Staff(user_id=STAFF))])

    asyncio.run(prepare())


@contextlib.contextmanager
def _named() -> Generator[Callable[[dict[str, str]], None]]:
    """Say in `.local/stack.env` where things are, for as long as they are there; only its owner can read the token."""
    shell.STACK_ENV.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield lambda variables: _write_env("".join(f"{name}={value}\n" for name, value in variables.items()))
    finally:
        shell.STACK_ENV.unlink(missing_ok=True)


def _write_env(text: str) -> None:
    fresh = shell.STACK_ENV.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(shell.STACK_ENV)


def _staff_token(issuer: "Issuer", settings: "Settings") -> str:
    from org_service.local import STAFF

    return issuer.token(STAFF, audience=settings.auth.audience, ttl_s=STAFF_TOKEN_TTL_S)


def renew_token(issuer: "Issuer", settings: "Settings") -> None:
    """Put another token in `stack.env`, where one is: the former was signed with a key that is withdrawn."""
    if not shell.STACK_ENV.is_file():
        return
    lines = shell.STACK_ENV.read_text().splitlines(keepends=True)
    named = f"{TOKEN}="
    _write_env("".join(f"{named}{_staff_token(issuer, settings)}\n" if x.startswith(named) else x for x in lines))


def _with_console(settings: "Settings") -> "Settings":
    """The same settings with the operators' page, signed in to by links: one's own servers are one's own."""
    console = settings.console.model_copy(update={"enabled": True, "links": True})
    return settings.model_copy(update={"console": console})


@contextlib.contextmanager
def _beside(task: Callable[[T, threading.Event], None], subject: T) -> Generator[None]:
    """Do something in a thread while the roles run; it ends when its event is set, or before."""
    over = threading.Event()
    thread = threading.Thread(target=task, args=(subject, over), name=task.__name__, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(stack: "Stack", over: threading.Event) -> None:
    """End the roles, as SIGTERM does, when a server ends by itself: they would wait for it forever."""
    from org_local import LocalStackError

    while not over.wait(CHECK_INTERVAL_S):
        try:
            stack.check()
        except LocalStackError:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def announce(settings: "Settings", over: threading.Event) -> None:
    """Say that it is ready once `/readyz` of each role answers 200; to whoever waits long, what is waited for."""
    from org_service.local.roles import ROLES, health_url

    addresses = {role: urlsplit(health_url(settings, role)) for role in ROLES}
    pages = {role: (each.hostname or "", each.port or 0) for role, each in addresses.items()}
    say_at = time.monotonic() + PATIENCE_S
    while True:
        said = {role: _why_not_ready(*page) for role, page in pages.items()}
        waiting = {role: why for role, why in said.items() if why is not None}
        if not waiting:
            break
        if time.monotonic() >= say_at:
            say_at = time.monotonic() + PATIENCE_S
            shell.say("not ready yet, waiting for " + "; ".join(f"{role}: {why}" for role, why in waiting.items()))
        if over.wait(READY_POLL_S):
            return
    shell.say("ready: try `orgs send create --name Acme` in another terminal; ^C stops")


def _why_not_ready(host: str, port: int) -> str | None:
    """What `/readyz` of a role says is missing; None where it is ready."""
    import http.client

    connection = http.client.HTTPConnection(host, port, timeout=READY_TIMEOUT_S)  # which no proxy setting diverts
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status == http.HTTPStatus.OK:
            return None
        checks = json.loads(answer.read())["checks"]
    except ConnectionRefusedError:
        return "it has not started yet"
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        return f"its health page at http://{host}:{port}/readyz cannot be read ({type(error).__name__})"
    finally:
        connection.close()
    return ", ".join(f"{name}: {check['detail']}" for name, check in checks.items() if not check["ok"])
