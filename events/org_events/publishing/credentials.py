"""Tokens by OAuth 2.0 client credentials (RFC 6749, section 4.4), always fresh, and asked for as rarely as possible.

    credentials = ClientCredentials("https://issuer.example/token", "billing", secret, audience="orgs")
    async with OrganizationClient(bootstrap_servers=…, source="/billing", token=credentials) as orgs:

A token is asked for again while the former is still good, in the background, so that no command waits for the issuer;
only the first one does. An issuer that is away is noticed by nobody until the last token is used up. What counts is how
long a token lives from the moment it was asked for, by a clock of this machine that nobody sets: what the issuer takes
for the present time doesn't matter.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any, Final, cast
from urllib.parse import quote_plus, urlsplit

from org_events.publishing.errors import ClientError, TokenRefused, TokenUnavailable

_log = logging.getLogger(__name__)

AHEAD_S: Final = 60.0
"""So long before its end a token is asked for again, or at two thirds of its life if that is later."""
SPARE_S: Final = 10.0
"""So long before its end a token is not used any more, or at nine tenths: the command is yet to reach the broker, whose
clock, by which the service judges, may be ahead of the issuer's."""
LIFE_S: Final = 60.0
"""Of a token whose issuer doesn't say (`expires_in` is optional): short costs requests, long would cost commands."""
RETRY_WAIT_S: Final = 2.0
"""Between a failure and the next request; who asks meanwhile gets the same failure, or the former token."""
TIMEOUT_S: Final = 10.0
_ANSWER_BYTES_MAX: Final = 256 * 1024
"""Far more than a token, which has to fit into a header of a command."""
_DETAIL_CHARS_MAX: Final = 300
_LATER: Final = frozenset({408, 425, 429})
"""Statuses below 500 that ask for another try."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ADVICE: Final = {
    "invalid_client": "Check client_id and client_secret.",
    "invalid_scope": "Check scope.",
    "invalid_target": "Check audience.",
    "unauthorized_client": "Allow this client the grant client_credentials, at the issuer.",
    "unsupported_grant_type": "Enable the grant client_credentials at the issuer, or check token_url.",
}
"""By the error codes of RFC 6749, section 5.2, and RFC 8707."""


def _read_clock() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(frozen=True, slots=True)
class _Held:
    token: str
    refresh_at: float
    good_until: float


class ClientCredentials:
    """Gives tokens: an `OrganizationClient`'s `token`. One object for all clients of an event loop.

    Args:
        token_url: The issuer's token endpoint. Redirects are not followed: they would get the secret.
        client_id: As registered there.
        client_secret: The same; it never appears in a log or an error.
        scope: Space-separated, if the issuer wants one.
        audience: Whom the token is for, where the issuer wants that named: the `ORGS_AUTH__AUDIENCE` of the service.
        secret_in_body: Send id and secret in the form instead of HTTP Basic, for issuers that ask for it.
        timeout_s: For a request.
        ssl_context: To trust other authorities than the system's.
        clock: In seconds.

    Raises:
        ValueError: The URL is not an http or https URL.
    """

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: str,
        *,
        scope: str | None = None,
        audience: str | None = None,
        secret_in_body: bool = False,
        timeout_s: float = TIMEOUT_S,
        ssl_context: SSLContext | None = None,
        clock: Callable[[], float] = _read_clock,
    ) -> None:
        _check_url(token_url)
        self._url = token_url
        optional = {"scope": scope, "audience": audience}
        self._form = {"grant_type": "client_credentials", **{k: v for k, v in optional.items() if v is not None}}
        self._basic: tuple[str, str] | None = None
        if secret_in_body:
            self._form |= {"client_id": client_id, "client_secret": client_secret}
        else:  # RFC 6749, section 2.3.1: both are form-encoded first
            self._basic = quote_plus(client_id), quote_plus(client_secret)
        self._timeout_s = timeout_s
        self._ssl_context = ssl_context
        self._clock = clock
        self._held: _Held | None = None
        self._failure: ClientError | None = None
        self._retry_at = 0.0
        self._request: asyncio.Task[str] | None = None

    async def __call__(self) -> str:
        """A token that is good for a while. However many ask, one request is under way.

        Raises:
            TokenUnavailable: The issuer doesn't answer, and there is no token that is still good. Try again later.
            TokenRefused: It answers, and gives none: the message says what to check.
            ImportError: Without `org-events[oauth]`.
        """
        now, held = self._clock(), self._held
        if held is not None and now < held.refresh_at:
            return held.token
        if self._failure is None or now >= self._retry_at:
            self._begin_request()
        if held is not None and now < held.good_until:
            return held.token
        if self._request is not None:
            return await asyncio.shield(self._request)  # who gives up leaves the request to the others
        assert self._failure is not None
        raise type(self._failure)(str(self._failure)) from self._failure

    def _begin_request(self) -> None:
        if self._request is None:
            self._request = asyncio.create_task(self._refresh(), name="org-events token")
            self._request.add_done_callback(self._end_request)

    def _end_request(self, request: asyncio.Task[str]) -> None:
        self._request = None
        if not request.cancelled():
            request.exception()  # marks it as seen: nobody may be waiting

    async def _refresh(self) -> str:
        asked_at = self._clock()
        try:
            token, life_s = _read_token(*await self._ask())
        except ClientError as error:
            self._failure, self._retry_at = error, self._clock() + RETRY_WAIT_S
            if self._held is not None:
                _log.warning("no new token, the former is used until its end: %s", error)
            raise
        self._failure = None
        self._held = _Held(
            token,
            refresh_at=asked_at + max(life_s - AHEAD_S, life_s * 2 / 3),
            good_until=asked_at + max(life_s - SPARE_S, life_s * 9 / 10),
        )
        return token

    async def _ask(self) -> tuple[int, bytes]:
        """Status and body of an answer."""
        try:
            import httpx2  # noqa: PLC0415 - an extra, and 0.1 s that only its users pay
        except ImportError as error:
            raise ImportError('ClientCredentials needs an HTTP client: pip install "org-events[oauth]"') from error
        options: dict[str, Any] = {"verify": True if self._ssl_context is None else self._ssl_context}
        auth = None if self._basic is None else httpx2.BasicAuth(*self._basic)
        headers = {"accept": "application/json"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                httpx2.AsyncClient(timeout=None, **options) as client,
                client.stream("POST", self._url, data=self._form, auth=auth, headers=headers) as response,
            ):
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > _ANSWER_BYTES_MAX:
                        break
                return response.status_code, body
        except (httpx2.HTTPError, OSError, TimeoutError) as error:
            why = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
            raise TokenUnavailable(f"No token from {self._url}: {why}. Nothing was sent; try again later.") from error


def _check_url(token_url: str) -> None:
    parts = urlsplit(token_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"token_url must be an http or https URL, not {token_url!r}")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        _log.warning("the client secret goes to %s over http: anyone on the network path can read it", parts.hostname)


def _read_token(status: int, body: bytes) -> tuple[str, float]:
    """Token and lifetime out of an answer (RFC 6749, section 5)."""
    answer = _read_object(body)
    if status >= 500 or status in _LATER:
        raise TokenUnavailable(f"No token: the issuer answers with status {status}. Nothing was sent; try again later.")
    if status != 200:
        raise TokenRefused(_describe_refusal(status, answer))
    token, kind = answer.get("access_token"), answer.get("token_type", "Bearer")
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable() or " " in token:
        raise TokenRefused("No token: the issuer's answer has none in access_token. Check token_url.")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise TokenRefused(f"No token: the issuer gives one of type {kind!a}, the service accepts Bearer. Check scope.")
    return token, _read_life_s(answer.get("expires_in"))


def _read_life_s(given: object) -> float:
    """Some issuers send the seconds as text."""
    try:
        life_s = float(cast("Any", given))
    except (TypeError, ValueError):
        return LIFE_S
    return life_s if 0 < life_s < float("inf") else LIFE_S


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        answer: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}


def _describe_refusal(status: int, answer: dict[str, Any]) -> str:
    code, detail = answer.get("error"), answer.get("error_description")
    said = "" if not isinstance(code, str) else f", {code[:_DETAIL_CHARS_MAX]!a}"
    said += "" if not isinstance(detail, str) else f", {detail[:_DETAIL_CHARS_MAX]!a}"
    advice = (
        _ADVICE.get(code, "Check token_url and the client's registration.")
        if isinstance(code, str)
        else ("Check token_url, client_id and client_secret.")
    )
    return f"No token: the issuer answers with status {status}{said}. {advice} Nothing was sent."
