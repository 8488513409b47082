"""`orgs console`: the way in to the operators' page of the local stack."""

import secrets
from typing import TYPE_CHECKING, Annotated, Final

import typer

from org_service.cli import shell, token
from org_service.local import STAFF

if TYPE_CHECKING:
    from org_service.settings import Settings

_SECRET_BYTES: Final = 32


def console(
    *,
    user: Annotated[str, typer.Option(help="Whom it signs in; only staff see anything.")] = STAFF,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print a link that signs you in to the operators' page, once, within some minutes.

    Only for the local stack, of which everybody on this machine who can read its folder is the operator: elsewhere one
    signs in at the issuer.

    Example: `orgs console`
    """
    token.check_user(user)
    settings = shell.load_settings()
    token.find_issuer(settings)
    if not settings.console.links:
        shell.fail("the page accepts no links here (ORGS_CONSOLE__LINKS): open /console, and sign in at the issuer.")
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    shell.run(_keep(settings, secret, user))
    link = f"{settings.console.url or settings.api_url}/console/sign-in/link?secret={secret}"
    if as_json:
        shell.write_json({"link": link, "user": user, "valid_s": settings.console.link_ttl_s})
    else:
        shell.write_text(link)


async def _keep(settings: "Settings", secret: str, user: str) -> None:
    from org_service.console.requests import digest_of
    from org_service.domain.reasons import TicketKind
    from org_service.store import console
    from org_service.store.database import Database

    database = Database(settings.database, "operate", direct=True)
    async with database.begin() as conn:
        await console.add_ticket(conn, digest_of(secret), TicketKind.LINK, user, settings.console.link_ttl_s)
