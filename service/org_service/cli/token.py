"""`orgs token`: tokens for any user of the local stack."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from org_service.cli import shell

if TYPE_CHECKING:
    from org_local import Issuer
    from org_service.settings import Settings


def token(
    *,
    user: Annotated[str | None, typer.Option(help="The user it identifies (`sub`).", show_default=False)] = None,
    ttl_s: Annotated[int, typer.Option("--ttl", min=1, max=31_536_000, help="Validity in seconds.")] = 3600,
    withdraw_key: Annotated[
        bool,
        typer.Option("--withdraw-key", help="Make a new key first: tokens of the former one are rejected from now on."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON, with its claims.")] = False,
) -> None:
    """Print a token that identifies a user, signed by the local stack's own issuer.

    Only for the local stack: if tokens come from another issuer, get one there. --withdraw-key is what that issuer does
    when its key was stolen; the token of `.local/stack.env` is replaced, too. It needs no --user.

    Example: `ORGS_TOKEN=$(orgs token --user ann) orgs send create --name Acme`
    """
    if user is not None:
        check_user(user)
    elif not withdraw_key:
        raise typer.BadParameter("--user is missing")
    settings = shell.load_settings()
    issuer = find_issuer(settings)
    if withdraw_key:
        _withdraw(issuer, settings)
    if user is None:
        return
    issued_s = int(time.time())
    signed = issuer.token(user, audience=settings.auth.audience, ttl_s=ttl_s, issued_s=issued_s)
    if not as_json:
        shell.write_text(signed)
        return
    shell.write_json(
        {
            "token": signed,
            "user": user,
            "issuer": issuer.name,
            "audience": settings.auth.audience,
            "issued_at": issued_s,
            "expires_at": issued_s + ttl_s,
        }
    )


def _withdraw(issuer: "Issuer", settings: "Settings") -> None:
    from org_local import LocalStackError
    from org_service.cli.up import renew_token

    try:
        issuer.withdraw()
    except LocalStackError as error:
        shell.fail(f"{error}.")
    renew_token(issuer, settings)
    shell.say("the key is withdrawn: every token that it signed is rejected from now on")


def check_user(user: str) -> None:
    """See that this can be a user."""
    from pydantic import TypeAdapter, ValidationError

    from org_events.reference import USER_ID_CHARS_MAX, UserId

    try:
        TypeAdapter(UserId).validate_python(user)
    except ValidationError:
        shell.fail(f"--user must be 1 to {USER_ID_CHARS_MAX} visible ASCII characters.", shell.USAGE)


def find_issuer(settings: "Settings") -> "Issuer":
    """The issuer whose tokens these settings take."""
    try:
        from org_local import Issuer, LocalStackError
    except ModuleNotFoundError:
        shell.fail("the local stack is not installed: install org-service[local].")
    auth = settings.auth
    if auth.issuer not in ("", Issuer.name) or auth.jwks_url:
        shell.fail(
            f"tokens are issued by {auth.issuer or 'ORGS_AUTH__JWKS_URL'} here, not by a local stack: get one there."
        )
    folder = Path(auth.jwks_file).parent if auth.jwks_file else shell.STACK_ENV.parent
    try:
        return Issuer.load(folder)
    except LocalStackError as error:
        shell.fail(f"{error}.")
