"""Tokens (JWT, RFC 7519): who acts, as of a moment.

A token is taken apart strictly, rejected for what is certainly wrong, and only then are keys asked for: an outage of
the issuer blocks nobody whose token would be rejected anyway. Every key that fits is tried; where none verifies it, a
token is rejected only by keys that were read after it was used (`keys` says why). PyJWT verifies the signature, with
the algorithm that the key has. It doesn't judge the claims: times count against the moment given (the record's broker
time), not against the clock, and what PyJWT lets through - a name twice, NaN, a time in milliseconds - must not pass
here. Headers that offer a key of their own (`jwk`, `jku`, `x5u`, `x5c`) are ignored (RFC 8725, section 3.10).
"""

import base64
import json
import math
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple, NoReturn, cast

import jwt
from jwt.algorithms import OKPAlgorithm
from pydantic import TypeAdapter, ValidationError

from org_events.reference import USER_ID_CHARS_MAX, UserId
from org_service.auth.key_set import normalize_algorithm
from org_service.auth.key_sources import make_source
from org_service.auth.keys import Keys
from org_service.errors import ConfigurationError, RetryError
from org_service.settings import AuthSettings

_COMPACT: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
"""RFC 7515, section 7.1; without padding."""
_TIME_MAX_S: Final = 253_402_300_799
"""The last second of the year 9999: a later time is one in milliseconds, or none."""
_NO_KEY: Final = "The token's key is not one of the issuer's, or the token does not name it (kid)."
_OTHER_ALGORITHM: Final = "The token's algorithm does not match its key."
_NOT_SIGNED: Final = "The token's signature is invalid."
_NESTED: Final = "The token contains another token; it must contain claims."

_SIGNATURES: Final = jwt.PyJWS(["RS256", "ES256", "EdDSA"], {"enforce_minimum_key_length": True})
"""Knows no other algorithm: neither `none` nor those with a shared secret."""
_SIGNATURES.register_algorithm("Ed25519", OKPAlgorithm())  # RFC 9864; PyJWT knows it as EdDSA alone
_USER_ID: Final[TypeAdapter[str]] = TypeAdapter(UserId)


class TokenRejected(Exception):
    """The token names nobody (401). The message says why, without a byte of the token."""


class Verified(NamedTuple):
    """A token whose signature, issuer and audience are right."""

    user_id: str
    from_s: float
    """It is valid from this moment on, seconds since 1970; the leeway is in it."""
    until_s: float
    """It is valid before this moment."""


def parse_bearer(header: bytes) -> bytes:
    """The token of an `authorization` header (RFC 6750, section 2.1).

    Raises:
        TokenRejected: It is not `Bearer` and one token.
    """
    scheme, _, token = header.strip().partition(b" ")
    token = token.lstrip()
    if scheme.lower() != b"bearer" or not token or b" " in token or b"," in token:
        raise TokenRejected("The header authorization must be Bearer followed by one token.")
    return token


def read_user(token: bytes) -> str | None:
    """Whose a token says it is. Nobody has verified that: only for what was verified before.

    Raises:
        TokenRejected: It can't be read.
    """
    user_id = _read_object(_split(token)[1], "payload").get("sub")
    return user_id if isinstance(user_id, str) else None


def read_nonce(token: bytes) -> str | None:
    """What an id token says which sign-in it is for. As `read_user`: only for what was verified before.

    Raises:
        TokenRejected: It can't be read.
    """
    nonce = _read_object(_split(token)[1], "payload").get("nonce")
    return nonce if isinstance(nonce, str) else None


class Tokens:
    """Verifies tokens, and remembers those it verified.

    Not for several threads. `start` comes first, `close` last.
    """

    def __init__(self, auth: AuthSettings) -> None:
        self._auth = auth
        self._keys: Keys | None = None
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()

    async def start(self) -> None:
        """Read the issuer's keys. May be called again after an error.

        Raises:
            ConfigurationError: The settings name no issuer or no keys, or what is there are no keys that can be used.
            RetryError: The keys can't be fetched now.
        """
        if not self._auth.issuer:
            raise ConfigurationError(
                "Tokens cannot be verified: set ORGS_AUTH__ISSUER to the `iss` of your tokens, and "
                "ORGS_AUTH__JWKS_FILE or ORGS_AUTH__JWKS_URL to where the issuer's public keys are."
            )
        if self._keys is None:
            self._keys = Keys(make_source(self._auth), self._verified.clear, stale_max_s=self._auth.jwks_stale_max_s)
        await self._keys.start()

    @property
    def reads(self) -> int:
        """How often the keys were read: what `judge` could not decide is worth another try when this has changed."""
        return 0 if self._keys is None else self._keys.reads

    def find_known(self, token: bytes, at: datetime) -> str | None:
        """The user of a token that was verified before; None where `judge` or `verify` must be asked.

        Args:
            token: As in the header, without `Bearer`.
            at: With a time zone. A token that has expired since is as good as it was then.

        Raises:
            TokenRejected: It was not valid at that moment.
        """
        verified = self._verified.get(token)
        if verified is None:
            return None
        self._verified.move_to_end(token)
        user_id, from_s, until_s = verified
        at_s = at.timestamp()
        if not from_s <= at_s < until_s:
            _reject_for_time(verified, at)
        return user_id if self._keys is not None and at_s < self._keys.good_until_s else None

    def judge(self, token: bytes, at: datetime, since_s: float) -> str | None:
        """The user that a token names; None where only keys that are read later can tell: they are from now on wanted.

        Args:
            token: As `find_known`.
            at: As `find_known`.
            since_s: When it was here at the latest, by the monotonic clock: keys read since then reject it finally.

        Raises:
            TokenRejected: It names nobody.
        """
        user_id = self.find_known(token, at)
        if user_id is not None:
            return user_id
        assert self._keys is not None, "start() comes first"
        auth = self._auth
        if len(token) > auth.token_bytes_max:
            raise TokenRejected(f"The token is longer than {auth.token_bytes_max} bytes.")
        header, payload = _split(token)
        algorithm, kid = _read_header(header, auth.algorithms)
        verified = _read_claims(payload, auth)
        at_s = at.timestamp()
        if not verified.from_s <= at_s < verified.until_s:
            _reject_for_time(verified, at)
        why = _NO_KEY
        for key, lasts in self._keys.find_fitting(kid, at_s):
            if key.algorithm != normalize_algorithm(algorithm):
                why = _OTHER_ALGORITHM if why == _NO_KEY else why
                continue
            try:
                _SIGNATURES.decode_complete(token, key.public, algorithms=[algorithm])
            except jwt.InvalidTokenError:
                why = _NOT_SIGNED
                continue
            if lasts:
                self._remember(token, verified)
            return verified.user_id
        if not self._keys.were_read_since(since_s):
            self._keys.request_read()
            return None
        raise TokenRejected(why)

    async def verify(self, token: bytes, at: datetime) -> str:
        """The user that a token names, after a wait for newer keys where need be; arguments as `find_known`.

        May be asked concurrently. The wait is bounded, and so is the number of those who wait.

        Raises:
            TokenRejected: It names nobody.
            RetryError: The keys can't be fetched now: nothing is known of the token.
        """
        since_s = time.monotonic()
        while (user_id := self.judge(token, at, since_s)) is None:
            assert self._keys is not None
            await self._keys.wait_for_read()
        return user_id

    async def check(self) -> str:
        """What there is to say of the keys; for `/readyz`.

        Raises:
            RetryError: None are in force.
        """
        if self._keys is None:
            raise RetryError("not read yet")
        return await self._keys.check()

    async def close(self) -> None:
        """Let go of connections; may be called again. Whoever still waits in `verify` is cancelled."""
        keys, self._keys = self._keys, None
        if keys is not None:
            await keys.close()

    def _remember(self, token: bytes, verified: Verified) -> None:
        self._verified[token] = verified
        if len(self._verified) > self._auth.tokens_cached:
            self._verified.popitem(last=False)


def _reject_for_time(verified: Verified, at: datetime) -> NoReturn:
    if at.timestamp() < verified.from_s:
        raise TokenRejected("The token was not valid yet.")
    raise TokenRejected("The token had expired.")


def _split(token: bytes) -> tuple[bytes, bytes]:
    """Header and payload, decoded."""
    if _COMPACT.fullmatch(token) is None:
        if token.count(b".") == 4:
            raise TokenRejected("The token is encrypted (JWE); it must only be signed.")
        raise TokenRejected("This is not a token (JWT): it must be header, claims and signature, each in base64url.")
    header, payload, _ = token.split(b".")
    return _decode(header), _decode(payload)


def _decode(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise TokenRejected("The token is damaged: a part of it is not base64url.") from None


def _read_object(content: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(content.decode(), object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        raise TokenRejected(f"The token's {what} is not JSON, or has a duplicate member.") from None
    if not isinstance(document, dict):
        raise TokenRejected(f"The token's {what} is not a JSON object.")
    return cast("dict[str, Any]", document)


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two members with one name, each reader could believe another (RFC 7515, section 4)."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError
    return document


def _reject_constant(_: str) -> NoReturn:
    """NaN and Infinity are not JSON; a token could be made to last forever by them."""
    raise ValueError


def _read_header(content: bytes, algorithms: Iterable[str]) -> tuple[str, str | None]:
    """Algorithm and key id."""
    header = _read_object(content, "header")
    algorithm, kid, content_type = header.get("alg"), header.get("kid"), header.get("cty")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        raise TokenRejected("The token is not signed.")
    if normalize_algorithm(algorithm) not in map(normalize_algorithm, algorithms):
        raise TokenRejected(f"The token's algorithm is not accepted; accepted: {', '.join(algorithms)}.")
    if "crit" in header:
        raise TokenRejected("The token requires an extension (crit); none is supported.")
    if isinstance(content_type, str) and content_type.lower().removeprefix("application/") == "jwt":
        raise TokenRejected(_NESTED)
    if kid is not None and not isinstance(kid, str):
        raise TokenRejected("The token's kid must be a string.")
    return algorithm, kid


def _read_claims(content: bytes, auth: AuthSettings) -> Verified:
    """User and times; issuer and audience are right."""
    if _COMPACT.fullmatch(content.strip(b'"')):
        raise TokenRejected(_NESTED)
    claims = _read_object(content, "payload")
    if claims.get("iss") != auth.issuer:
        raise TokenRejected("The token is from another issuer.")
    if not _is_for(auth.audience, claims.get("aud")):
        raise TokenRejected("The token is for another audience.")
    try:
        user_id = _USER_ID.validate_python(claims.get("sub"))
    except ValidationError:
        raise TokenRejected(
            f"The token's sub must be the user's id: 1 to {USER_ID_CHARS_MAX} visible ASCII characters."
        ) from None
    times = {name: _read_time(claims[name], name) for name in ("exp", "nbf", "iat") if claims.get(name) is not None}
    if "exp" not in times:
        raise TokenRejected("The token never expires; it must have exp.")
    began_s = max((times[name] for name in ("nbf", "iat") if name in times), default=-math.inf)
    return Verified(user_id, began_s - auth.leeway_s, times["exp"] + auth.leeway_s)


def _is_for(audience: str, named: object) -> bool:
    """Whether `aud` is the audience, or a list of texts that holds it."""
    several = cast("list[object]", named) if isinstance(named, list) else [named]
    return audience in several and all(isinstance(each, str) for each in several)


def _read_time(value: object, name: str) -> float:
    """Seconds since 1970 (RFC 7519, section 2: NumericDate)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _TIME_MAX_S:
        raise TokenRejected(f"The token's {name} is not a time in seconds since 1970.")
    return float(value)
