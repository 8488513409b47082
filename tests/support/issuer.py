"""An issuer for tests: real keys of every kind, and tokens with whatever header and claims a test wants."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from org_service.settings import AuthSettings

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

ISSUER = "https://issuer.example"
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
"""Half an hour after `CLAIMS` begin to be valid, and half an hour before they expire."""
AT_S = 1_772_366_400
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": "orgs",
    "sub": "ann",
    "iat": AT_S - 1800,
    "nbf": AT_S - 1800,
    "exp": AT_S + 1800,
}


@dataclass(frozen=True)
class Signer:
    """A key pair of the issuer."""

    kid: str | None
    algorithm: str
    private: PrivateKey

    def token(self, headers: Mapping[str, Any] | None = None, /, **claims: Any) -> bytes:
        """A token of `CLAIMS` with some changed; None takes a claim or a header away."""
        return self.sign(json.dumps(_changed(CLAIMS, claims)).encode(), headers)

    def sign(self, payload: bytes, headers: Mapping[str, Any] | None = None) -> bytes:
        """A token with that payload."""
        header = _changed({"typ": "JWT", "alg": self.algorithm, "kid": self.kid}, headers or {})
        return self.sign_parts(json.dumps(header).encode(), payload)

    def sign_parts(self, header: bytes, payload: bytes) -> bytes:
        """A token of that very header and payload."""
        content = base64url(header) + b"." + base64url(payload)
        return content + b"." + base64url(self._signature(content))

    def jwk(self) -> dict[str, Any]:
        """The public key."""
        return _named(jwk_of(self.private.public_key()), self.kid)

    def private_jwk(self) -> dict[str, Any]:
        """The whole pair."""
        return _named(jwk_of(self.private), self.kid)

    def pem(self) -> bytes:
        """The public key."""
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def called(self, kid: str | None) -> "Signer":
        """The same key with another id."""
        return replace(self, kid=kid)

    def _signature(self, content: bytes) -> bytes:
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(content)
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(content, padding.PKCS1v15(), hashes.SHA256())
        length = (self.private.key_size + 7) // 8
        pair = decode_dss_signature(self.private.sign(content, ec.ECDSA(hashes.SHA256())))
        return b"".join(number.to_bytes(length, "big") for number in pair)


@cache
def rsa_key(bits: int = 2048) -> Signer:
    """The RSA key of that size; made once, for it takes a while."""
    return Signer("rsa", "RS256", rsa.generate_private_key(65537, bits))


@cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1) -> Signer:
    """The key on that curve."""
    return Signer("ec", "ES256", ec.generate_private_key(curve()))


def ed_key(kid: str | None = "ed") -> Signer:
    """A new Ed25519 key."""
    return Signer(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


def jwks(*keys: Signer | Mapping[str, Any]) -> bytes:
    """A JWK Set; of signers the public half."""
    return json.dumps({"keys": [key.jwk() if isinstance(key, Signer) else key for key in keys]}).encode()


def auth(folder: Path, *keys: Signer | Mapping[str, Any], **settings: Any) -> AuthSettings:
    """Settings for tokens of these keys, whose set is written to `folder/jwks.json`."""
    path = folder / "jwks.json"
    path.write_bytes(jwks(*keys))
    return AuthSettings.model_validate({"issuer": ISSUER, "jwks_file": str(path), "leeway_s": 5, **settings})


def base64url(content: bytes) -> bytes:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def jwk_of(key: Any) -> dict[str, Any]:
    """A key as JWK."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        document: dict[str, Any] = RSAAlgorithm.to_jwk(key, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        document = ECAlgorithm.to_jwk(key, as_dict=True)
    else:
        document = OKPAlgorithm.to_jwk(key, as_dict=True)
    return document


def _named(jwk: dict[str, Any], kid: str | None) -> dict[str, Any]:
    return jwk if kid is None else jwk | {"kid": kid}


def _changed(document: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**document, **changes}.items() if value is not None}
