"""A JWK Set (RFC 7517) read: which keys may verify which signatures. Pure.

A key says itself what it verifies: RSA is RS256, P-256 is ES256, Ed25519 is EdDSA (RFC 9864 calls that Ed25519), and
nothing a token says can change it. That is what defeats a token signed with a public key as if it were a password. Keys
of other kinds are passed over, as the RFC wants; a set that gives away a private or shared key is rejected whole, for
whoever made it made a mistake.

A `kid` is a hint, not a name: at rotations two keys have the same one, or some have none. Whatever fits may verify.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

RSA_BITS_MIN: Final = 2048
"""RFC 7518, section 3.3."""
_ALGORITHM: Final[Mapping[tuple[object, object], str]] = {
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
"""By key type and curve."""
_ALIASES: Final = {"Ed25519": "EdDSA"}
"""Newer names of the same (RFC 9864)."""
_PRIVATE: Final = frozenset({"d", "p", "q", "priv"})
"""Members that only a private key has (RFC 7518, section 6)."""


class KeySetError(ValueError):
    """No set of keys, or one that must not be used; the message says why, without a byte of it."""


class Key(NamedTuple):
    """A key that verifies signatures of one algorithm."""

    algorithm: str
    public: PublicKey


class KeySet(NamedTuple):
    """The keys of a set."""

    keys: Mapping[str | None, tuple[Key, ...]]
    """By `kid`; None for those without one."""
    unusable: tuple[str, ...]
    """Why each of the others was passed over."""


NO_KEYS: Final = KeySet({}, ())


def normalize_algorithm(algorithm: str) -> str:
    """The one name of an algorithm that may have two."""
    return _ALIASES.get(algorithm, algorithm)


def read_key_set(content: bytes) -> KeySet:
    """Read a JWK Set; it may turn out empty.

    Raises:
        KeySetError: It is not a JWK Set, or it holds a private or a shared key.
    """
    try:
        document = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise KeySetError("it is not JSON") from None
    listed = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise KeySetError('it is not a JWK Set: it must be an object with the list "keys"')
    keys: dict[str | None, tuple[Key, ...]] = {}
    unusable: list[str] = []
    for number, entry in enumerate(cast("list[Any]", listed), 1):
        found = _read_key(cast("dict[str, Any]", entry), number) if isinstance(entry, dict) else "it is not an object"
        if isinstance(found, str):
            unusable.append(f"key {number}: {found}")
            continue
        kid, key = found
        keys[kid] = (*keys.get(kid, ()), key)
    return KeySet(keys, tuple(unusable))


def _read_key(jwk: dict[str, Any], number: int) -> tuple[str | None, Key] | str:
    """The key and its `kid`, or why it can't be used."""
    if jwk.get("kty") == "oct" or "k" in jwk:
        raise KeySetError(f"key {number} is a shared secret; only public keys are allowed")
    if _PRIVATE & jwk.keys():
        raise KeySetError(
            f"key {number} is a private key; replace it, because anyone who has read the set can sign with it"
        )
    algorithm = _ALGORITHM.get((_text(jwk.get("kty")), _text(jwk.get("crv"))))
    if algorithm is None:
        return "its type is not RSA, EC P-256 or OKP Ed25519"
    named = jwk.get("alg", algorithm)
    if not (
        jwk.get("use", "sig") == "sig"
        and isinstance(named, str)
        and normalize_algorithm(named) == algorithm
        and _may_verify(jwk.get("key_ops"))
    ):
        return f"it is not for signatures with {algorithm}"
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        return "its kid is not a string"
    try:
        public = jwt.PyJWK(jwk, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return "its parameters are invalid"
    if isinstance(public, RSAPublicKey) and public.key_size < RSA_BITS_MIN:
        return f"it is an RSA key of {public.key_size} bits, fewer than {RSA_BITS_MIN}"
    return kid, Key(algorithm, cast("PublicKey", public))


def _may_verify(operations: object) -> bool:
    return operations is None or (isinstance(operations, list) and "verify" in operations)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
