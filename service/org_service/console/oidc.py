"""Sign-in at the configured issuer: OpenID Connect's code flow, with PKCE (RFC 7636), state and nonce.

What a sign-in under way is known by stays in a cookie of the browser that began it, so nobody who isn't signed in makes
us keep anything, and a code that somebody else's browser brings is worth nothing here.
"""

import base64
import hashlib
import secrets
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlencode

import httpx2
import orjson

from org_service.auth.tokens import TokenRejected, Tokens, read_nonce
from org_service.console.requests import Rejected
from org_service.errors import RetryError
from org_service.settings import Settings
from org_service.telemetry.logs import get_logger

log = get_logger(__name__)

_ANSWER_BYTES_MAX: Final = 131_072
_WELL_KNOWN: Final = "/.well-known/openid-configuration"


class Begun(NamedTuple):
    """A sign-in under way."""

    state: str
    nonce: str
    verifier: str
    target: str
    """Where its user wanted to go."""

    def as_cookie(self) -> str:
        """As its browser keeps it."""
        return base64.urlsafe_b64encode(orjson.dumps(tuple(self))).decode()

    @classmethod
    def from_cookie(cls, cookie: str) -> "Begun | None":
        """What a browser brings back; None where it isn't one."""
        try:
            document: Any = orjson.loads(base64.urlsafe_b64decode(cookie.encode("ascii")))
        except ValueError:
            return None
        fields = cast("list[Any]", document) if isinstance(document, list) else []
        return cls._make(fields) if len(fields) == 4 and all(isinstance(each, str) for each in fields) else None


class Provider:
    """The issuer, as a client of it sees it. `close` last."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings.console
        self._issuer = settings.auth.issuer
        # An id token is for the client that asked for it, not for the API.
        self._tokens = Tokens(settings.auth.model_copy(update={"audience": self._settings.client_id or "-"}))
        self._started = False
        self._client = httpx2.AsyncClient(timeout=self._settings.issuer_timeout_s, trust_env=False)
        self._described: dict[str, Any] | None = None

    @property
    def configured(self) -> bool:
        """Whether somebody can sign in there."""
        return bool(self._settings.client_id)

    async def begin(self, redirect_uri: str, target: str) -> tuple[str, Begun]:
        """Begin a sign-in: the address to send the browser to, and what it has to keep.

        Raises:
            Rejected: The issuer can't be asked.
        """
        described = await self._describe()
        begun = Begun(secrets.token_urlsafe(24), secrets.token_urlsafe(24), secrets.token_urlsafe(48), target)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": self._settings.scope,
            "state": begun.state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint: str = described["authorization_endpoint"]
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}", begun

    async def finish(self, begun: Begun, code: str, redirect_uri: str) -> str:
        """Whom the issuer says it was.

        Raises:
            Rejected: It doesn't say so, or can't be asked.
        """
        described = await self._describe()
        asked = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._settings.client_id,
            "code_verifier": begun.verifier,
        }
        secret = self._settings.client_secret.get_secret_value()
        login = httpx2.BasicAuth(self._settings.client_id, secret) if secret else None
        answer = await self._ask("POST", described["token_endpoint"], data=asked, auth=login)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _failed("The issuer did not say who you are.")
        return await self._verify(token.encode(errors="replace"), begun.nonce)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()
        await self._tokens.close()

    async def _verify(self, token: bytes, nonce: str) -> str:
        try:
            if not self._started:
                await self._tokens.start()
                self._started = True
            user_id = await self._tokens.verify(token, datetime.now(UTC))
            named = read_nonce(token)
        except TokenRejected as rejected:
            log.warning("the issuer's id token was rejected", why=str(rejected))
            raise _failed("The issuer's answer was not valid.") from rejected
        except RetryError as away:
            raise _failed("The issuer's keys could not be fetched. Try again.") from away
        if named is None or not secrets.compare_digest(named, nonce):
            raise _failed("The issuer's answer belongs to another sign-in.")
        return user_id

    async def _describe(self) -> dict[str, Any]:
        """The issuer's own description (OpenID Connect Discovery), read once."""
        if self._described is None:
            url = self._settings.discovery_url or f"{self._issuer.rstrip('/')}{_WELL_KNOWN}"
            described = await self._ask("GET", url)
            endpoints = (described.get("authorization_endpoint"), described.get("token_endpoint"))
            if described.get("issuer") != self._issuer or not all(isinstance(each, str) for each in endpoints):
                log.error("what the issuer says of itself can't be used", url=url)
                raise _failed("The issuer's description of itself can't be used.")
            self._described = described
        return self._described

    async def _ask(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, url, headers={"accept": "application/json"}, **options)
            document: Any = answer.json() if len(answer.content) <= _ANSWER_BYTES_MAX else None
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            log.warning("the issuer could not be asked", url=url, why=type(error).__name__)
            raise _failed("The issuer could not be reached. Try again.") from error
        if answer.status_code != 200 or not isinstance(document, dict):
            log.warning("the issuer did not answer as expected", url=url, status=answer.status_code)
            raise _failed("The issuer rejected the sign-in.")
        return cast("dict[str, Any]", document)


def _failed(said: str) -> Rejected:
    return Rejected(502, "Sign-in failed", said)
