"""The local stack's own issuer of tokens (JWT): an Ed25519 key in the data folder, and its public half beside it.

Whoever can read the key is anybody they like, so only its owner can; it is made once, on this machine, and worth
nothing elsewhere. Never for production.

    issuer = Issuer.open(Path(".local"))
    issuer.token("ann")   # verified by issuer.jwks_file, with `iss` issuer.name
"""

import base64
import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from org_local.errors import LocalStackError

NAME: Final = "orgs-local"
ALGORITHM: Final = "EdDSA"
_SECRET_FILE: Final = "issuer.json"  # noqa: S105 - a name
_PUBLIC_FILE: Final = "jwks.json"
_LOCK_FILE: Final = "issuer.lock"


class Issuer:
    """Signs tokens for anybody who is named. See `open` and `load`."""

    name = NAME
    """`iss` of its tokens."""

    def __init__(self, folder: Path, keys: list[dict[str, str]]) -> None:
        self.jwks_file = folder / _PUBLIC_FILE
        """The public keys, as a JWK Set."""
        self._folder = folder
        self._keys = keys

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The issuer of a data folder, made at the first time. May be called by several processes at once.

        Raises:
            LocalStackError: Its files can't be read or written.
        """
        folder = folder.resolve()
        with _explained(folder), _held(folder):
            issuer = cls(folder, _read(folder) or [_new_key()])
            issuer._save()
            return issuer

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The issuer of a data folder that has one.

        Raises:
            LocalStackError: There is none, or its file can't be read.
        """
        folder = folder.resolve()
        with _explained(folder):
            keys = _read(folder)
        if not keys:
            raise LocalStackError(f"{folder} contains no token issuer: `orgs up` creates it")
        return cls(folder, keys)

    def token(self, user: str, *, audience: str = "orgs", ttl_s: float = 3600, issued_s: float | None = None) -> str:
        """A token that names a user.

        Args:
            user: Its `sub`, taken as it is.
            audience: Its `aud`.
            ttl_s: For how long it is valid.
            issued_s: From when on, in seconds since 1970; now if left out.
        """
        issued = int(time.time() if issued_s is None else issued_s)
        key = self._keys[-1]
        claims: dict[str, Any] = {"iss": NAME, "aud": audience, "sub": user, "iat": issued, "exp": issued + ttl_s}
        return jwt.encode(claims, jwt.PyJWK(key, ALGORITHM), ALGORITHM, headers={"kid": key["kid"]})

    def withdraw(self) -> None:
        """Sign with a new key from now on, and publish no other: tokens of the former ones are void within a second.

        For a key that somebody else may have. May be called by several processes at once.

        Raises:
            LocalStackError: Its files can't be written.
        """
        with _explained(self._folder), _held(self._folder):
            self._keys = [_new_key()]
            self._save()

    def _save(self) -> None:
        """Write what differs; the public keys last, so that nothing is published that could be lost."""
        public = [{name: value for name, value in key.items() if name != "d"} for key in self._keys]
        _write(self._folder / _SECRET_FILE, json.dumps({"keys": self._keys}), mode=0o600)
        _write(self.jwks_file, json.dumps({"keys": public}), mode=0o644)


def _new_key() -> dict[str, str]:
    private = Ed25519PrivateKey.generate()
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": ALGORITHM,
        "kid": secrets.token_hex(8),
        "x": _base64url(private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)),
        "d": _base64url(private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())),
    }


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _read(folder: Path) -> list[dict[str, str]] | None:
    path = folder / _SECRET_FILE
    try:
        return json.loads(path.read_text())["keys"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise LocalStackError(f"{path} is damaged: remove it, and the next `orgs up` creates a new one") from error


def _write(path: Path, content: str, *, mode: int) -> None:
    """Replace a file whole, unless it is so already; nobody sees half of it, nor a secret with more rights."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == content and path.stat().st_mode & 0o777 == mode:
            return
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask took away
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


@contextlib.contextmanager
def _held(folder: Path) -> Generator[None]:
    """Hold the folder's issuer alone; another process waits for milliseconds."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _explained(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise LocalStackError(f"the token issuer in {folder} cannot be used: {error.strerror}") from error
