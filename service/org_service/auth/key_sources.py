"""Where the issuer's keys come from: a file, which may be replaced at any time, or a URL."""

import asyncio
import time
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx2

from org_service.auth.key_set import KeySetError
from org_service.errors import ConfigurationError, RetryError
from org_service.settings import AuthSettings
from org_service.telemetry.logs import get_logger

KEY_SET_BYTES_MAX: Final = 1024 * 1024
"""Thousands of keys; more is a mistake, or no set of keys at all."""
FILE_CHECK_INTERVAL_S: Final = 1.0
"""How often to see whether the file changed: one `stat` a second costs nothing."""
SETTLED_AFTER_S: Final = 2.0
"""A file that changed less than this ago may change once more without its size or time telling: clocks of file systems
tick every few milliseconds, some every two seconds."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

log = get_logger(__name__)


class KeySource(Protocol):
    """Where a set of keys comes from."""

    name: str
    """For people: nothing secret is in it."""
    renew_after_s: float
    """How old the keys may get."""
    retry_s: float
    """Shortest time from one read for a token that no key verifies to the next."""

    async def read(self) -> bytes | None:
        """The set as it is now; None where it is as it was at the last read.

        Raises:
            KeySetError: It can't be one.
            RetryError: It could not be fetched now.
            OSError: The file can't be read.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class File:
    """A set of keys in a file, which may be replaced at any time."""

    def __init__(self, path: str) -> None:
        self.name = path
        self.renew_after_s = FILE_CHECK_INTERVAL_S
        self.retry_s = 0.0
        self._path = Path(path)
        self._seen: tuple[int, int, int] | None = None

    async def read(self) -> bytes | None:
        """As `Source.read`."""
        return self._read_changed()

    async def close(self) -> None:
        """Nothing is open."""

    def _read_changed(self) -> bytes | None:
        seen, self._seen = self._seen, None
        stat = self._path.stat()  # before the content: a change in between is seen the next time
        now = stat.st_ino, stat.st_size, stat.st_mtime_ns
        if now != seen:
            if stat.st_size > KEY_SET_BYTES_MAX:
                raise KeySetError(f"it is longer than {KEY_SET_BYTES_MAX} bytes")
            content = self._path.read_bytes()
        else:
            content = None
        settled = time.time() - stat.st_mtime > SETTLED_AFTER_S
        self._seen = now if settled else None
        return content


class Url:
    """A set of keys at a URL."""

    def __init__(self, url: str, *, max_age_s: float, retry_s: float, timeout_s: float) -> None:
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self.renew_after_s = max_age_s
        self.retry_s = retry_s
        self._url = url
        self._timeout_s = timeout_s
        self._client: httpx2.AsyncClient | None = None

    async def read(self) -> bytes:
        """As `Source.read`; redirects aren't followed, they could lead from https to http."""
        if self._client is None:
            # What a cache kept (RFC 9111, section 5.2.1.4) is no set read now.
            self._client = httpx2.AsyncClient(timeout=self._timeout_s, headers={"cache-control": "no-cache"})
        content = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s), self._client.stream("GET", self._url) as response:
                if response.status_code != HTTPStatus.OK:
                    raise RetryError(f"the response was {response.status_code}")
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > KEY_SET_BYTES_MAX:
                        raise KeySetError(f"it is longer than {KEY_SET_BYTES_MAX} bytes")
        except TimeoutError as error:
            raise RetryError(f"no response within {self._timeout_s:g} s") from error
        except httpx2.HTTPError as error:
            raise RetryError(f"no response ({type(error).__name__})") from error
        return bytes(content)

    async def close(self) -> None:
        """As `Source.close`."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def make_source(auth: AuthSettings) -> KeySource:
    """Where the settings say the keys are.

    Raises:
        ConfigurationError: Nowhere, twice, or at no URL.
    """
    if bool(auth.jwks_file) == bool(auth.jwks_url):
        raise ConfigurationError(
            "Tokens cannot be verified: set ORGS_AUTH__JWKS_FILE or ORGS_AUTH__JWKS_URL, "
            + ("not both." if auth.jwks_file else "to where the issuer's public keys are.")
        )
    if auth.jwks_file:
        return File(auth.jwks_file)
    try:
        parts = urlsplit(auth.jwks_url)
        usable = parts.scheme in ("http", "https") and bool(httpx2.URL(auth.jwks_url).host)
    except (ValueError, httpx2.InvalidURL):
        parts = urlsplit("")
        usable = False
    if not usable:
        raise ConfigurationError(
            "ORGS_AUTH__JWKS_URL must be an http or https URL, such as https://issuer.example/jwks.json."
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        log.warning(
            "keys are fetched over http: anyone on the network path can forge tokens", setting="ORGS_AUTH__JWKS_URL"
        )
    return Url(auth.jwks_url, max_age_s=auth.jwks_max_age_s, retry_s=auth.jwks_retry_s, timeout_s=auth.jwks_timeout_s)
