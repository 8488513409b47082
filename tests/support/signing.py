"""Commands with tokens of a local issuer, and the settings that verify them."""

from dataclasses import replace
from pathlib import Path

from org_local.issuer import Issuer
from org_service.settings import AuthSettings, Settings
from tests.support.sending import Sending


class Signing:
    """An issuer of its own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.issuer = Issuer.open(folder)
        auth = AuthSettings(commands="tokens", issuer=self.issuer.name, jwks_file=str(self.issuer.jwks_file))
        self.settings = settings.model_copy(update={"auth": auth})

    def signed(self, sending: Sending, user: str, *, ttl_s: float = 3600) -> Sending:
        """The same command with a user's token."""
        token = self.issuer.token(user, ttl_s=ttl_s)
        return replace(sending, headers=(*sending.headers, ("authorization", f"Bearer {token}".encode())))
