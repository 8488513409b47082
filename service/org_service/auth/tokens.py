"""Tokens (JWT, RFC 7519): who acts, as of a moment."""

from datetime import datetime
from typing import NamedTuple

from org_service.settings import Auth


class TokenRefused(Exception):
    """The token names nobody (401). The message says why, without a byte of the token."""


def bearer(header: bytes) -> bytes:
    """The token of an `authorization` header (RFC 6750, section 2.1).

    Raises:
        TokenRefused: It is not `Bearer` and one token.
    """
    scheme, _, token = header.strip().partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or b" " in token:
        raise TokenRefused("The header authorization must be Bearer and a token.")
    return token


class Verified(NamedTuple):
    """A token whose signature, issuer and audience are right."""

    user_id: str
    not_before_s: float
    expires_s: float
    """Seconds since 1970."""


class Tokens:
    """Verifies tokens."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    def known(self, token: bytes, at: datetime) -> str | None:
        """The user of a token that was verified before; None where `verify` must be asked.

        Raises:
            TokenRefused: It was not valid at that moment.
        """
        raise NotImplementedError

    async def verify(self, token: bytes, at: datetime) -> str:
        """The user that a token names.

        Raises:
            TokenRefused: It names nobody.
            RetryError: The keys can't be had now: nothing is known of the token.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Close."""
