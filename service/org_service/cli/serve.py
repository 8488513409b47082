"""`orgs serve` and `orgs migrate`: what runs in production."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_service.settings import Settings

RoleOption = Literal["worker", "relay", "edge", "operate"]
ROLES: Final[tuple[RoleOption, ...]] = ("worker", "relay", "edge", "operate")


def serve(
    role: Annotated[
        Literal["worker", "relay", "edge", "operate", "all"],
        typer.Option(help="What this process does; the edge needs a token issuer, operate runs what was detached."),
    ] = "all",
) -> None:
    """Run the worker, the relay, the edge (HTTP and MCP), detached operations or all of these until SIGTERM or ^C.

    Then it drains and exits.

    Example: `orgs serve --role worker`
    """
    from org_service.telemetry.logs import set_up_logging

    settings = shell.load_settings()
    set_up_logging(settings.log)
    run_roles(settings, ROLES if role == "all" else (role,))


def run_roles(settings: "Settings", roles: Collection[RoleOption]) -> None:
    """Run roles until a signal; on uvloop, which makes about a third more of the same core."""
    import uvloop

    from org_service import runtime

    uvloop.run(runtime.serve(settings, roles))


def migrate() -> None:
    """Migrate the database to the version this release needs. Run it as one job, before a new release starts.

    May be run again, and concurrently: the later runs find nothing to do. A database that a newer release has migrated
    is left unchanged: this exits with 0 if this release can run on it, otherwise with 1.

    Example: `ORGS_DATABASE__URL=postgresql://owner@db/orgs orgs migrate`
    """
    from org_service.settings import LogSettings
    from org_service.store import migrate as migrations
    from org_service.telemetry.logs import set_up_logging

    settings = shell.load_settings()
    set_up_logging(LogSettings(level="warning"))  # each migration is reported on standard output already
    revision = shell.run(migrations.upgrade(settings.database, report=shell.write_text))
    needed = migrations.head()
    ahead = (
        "" if revision == needed else f", ahead of this release ({needed}), which can run on it: nothing was changed"
    )
    shell.write_text(f"the database is at version {revision}{ahead}")
