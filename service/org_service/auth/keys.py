"""The keys in force: read at start, kept fresh in the background, read at once for a key that nobody has heard of.

Nobody waits for keys that are merely old. A set that can't be had, or can't be used, leaves the last good one in force:
an issuer's outage must not become ours. Only a token whose key is unknown has to wait then, and it is never refused
for it. What the issuer took out of its set is forgotten with everything that was verified by it.
"""

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx2

from org_service.auth.key_set import NO_KEYS, Key, KeySet, KeySetError, read_key_set
from org_service.errors import RetryError, StopError
from org_service.settings import Auth
from org_service.telemetry import get_logger

KEY_SET_BYTES_MAX: Final = 1024 * 1024
"""Thousands of keys; more is a mistake, or no set of keys at all."""
FILE_CHECK_INTERVAL_S: Final = 1.0
"""How often to see whether the file changed: one `stat` a second costs nothing."""
SETTLED_AFTER_S: Final = 2.0
"""A file that changed less than this ago may change once more without its size or time telling: clocks of file systems
tick every few milliseconds, some every two seconds."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

log = get_logger(__name__)


class Source(Protocol):
    """Where a set of keys comes from."""

    name: str
    """For people: nothing secret is in it."""
    renew_after_s: float
    """How old the keys may get."""
    retry_s: float
    """Shortest time from one unasked-for read to the next."""

    async def read(self) -> bytes | None:
        """The set as it is now; None where it is as it was at the last read.

        Raises:
            KeySetError: It can't be one.
            RetryError: It can't be had now.
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
            self._client = httpx2.AsyncClient(timeout=self._timeout_s)
        content = bytearray()
        try:
            async with asyncio.timeout(self._timeout_s), self._client.stream("GET", self._url) as response:
                if response.status_code != HTTPStatus.OK:
                    raise RetryError(f"the answer was {response.status_code}")
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > KEY_SET_BYTES_MAX:
                        raise KeySetError(f"it is longer than {KEY_SET_BYTES_MAX} bytes")
        except TimeoutError as error:
            raise RetryError(f"no answer within {self._timeout_s:g} s") from error
        except httpx2.HTTPError as error:
            raise RetryError(f"no answer ({type(error).__name__})") from error
        return bytes(content)

    async def close(self) -> None:
        """As `Source.close`."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def source_of(auth: Auth) -> Source:
    """Where the settings say the keys are.

    Raises:
        StopError: Nowhere, twice, or at no URL.
    """
    if bool(auth.jwks_file) == bool(auth.jwks_url):
        raise StopError(
            "Tokens can't be verified: set ORGS_AUTH__JWKS_FILE or ORGS_AUTH__JWKS_URL, "
            + ("not both." if auth.jwks_file else "where the issuer's public keys are.")
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
        raise StopError("ORGS_AUTH__JWKS_URL must be an http or https URL, such as https://issuer.example/jwks.json.")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        log.warning("keys come over http: whoever is on the way can sign as anybody", setting="ORGS_AUTH__JWKS_URL")
    return Url(auth.jwks_url, max_age_s=auth.jwks_max_age_s, retry_s=auth.jwks_retry_s, timeout_s=auth.jwks_timeout_s)


class Keys:
    """The keys of one source.

    Args:
        source: Where they come from.
        on_removal: Called when a key is gone from the set or has become another.
    """

    def __init__(self, source: Source, on_removal: Callable[[], None]) -> None:
        self._source = source
        self._on_removal = on_removal
        self._set: KeySet = NO_KEYS
        self._trouble: Exception | None = None
        """Why the last read brought no keys; None where it did."""
        self._looked_at_s = -math.inf
        """When the set was read last for a key that nobody had heard of."""
        self._reading: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the keys for the first time and keep them fresh from now on. May be called again after an error.

        Raises:
            StopError: What is there can't be used.
            RetryError: They can't be had now; nothing was started.
        """
        await self._renew()
        if isinstance(self._trouble, RetryError):
            raise RetryError(f"The keys of tokens can't be had from {self._source.name}: {self._trouble}.")
        if self._trouble is not None:
            raise StopError(f"The keys of tokens in {self._source.name} can't be used: {_why(self._trouble)}.")
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._keep_fresh(), name="renew the keys of tokens")

    async def get(self, kid: str | None) -> Key | None:
        """The key of that id; None where the issuer has no such key.

        Raises:
            RetryError: There may be one, but the set can't be had or used now.
        """
        key = self._set.keys.get(kid)
        # Whoever sends made-up key ids makes us ask the issuer once in a while, and no more.
        if key is None and (self._is_reading() or time.monotonic() - self._looked_at_s >= self._source.retry_s):
            await self._renew()
            self._looked_at_s = time.monotonic()
            key = self._set.keys.get(kid)
        if key is None and self._trouble is not None:
            raise RetryError(
                f"A token has a key that isn't known yet, and the set of keys at {self._source.name} can't be had or "
                f"used now: {_why(self._trouble)}."
            )
        return key

    async def close(self) -> None:
        """Stop keeping the keys fresh; may be called again."""
        tasks = [task for task in (self._renewing, self._reading) if task is not None]
        self._renewing = self._reading = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._source.close()

    async def _keep_fresh(self) -> None:
        source = self._source
        while True:
            in_trouble = self._trouble is not None and source.retry_s > 0
            await asyncio.sleep(min(source.renew_after_s, source.retry_s) if in_trouble else source.renew_after_s)
            try:
                await self._renew()
            except Exception:
                log.exception("the keys of tokens can't be renewed: a defect", source=source.name)

    def _is_reading(self) -> bool:
        return self._reading is not None and not self._reading.done()

    async def _renew(self) -> None:
        """Read the set; whoever asks while it is being read waits for the same answer."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="read the keys of tokens")
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        """Read the set and take it; what can be expected to go wrong is kept as the trouble, and logged once."""
        before = self._trouble
        try:
            content = await self._source.read()
            if content is not None:
                self._take(read_key_set(content))
        except (RetryError, KeySetError, OSError) as error:
            self._trouble = error
        if self._trouble is not None and (before is None or _why(before) != _why(self._trouble)):
            log.warning(
                "the keys of tokens can't be renewed: those at hand stay in force",
                source=self._source.name,
                why=_why(self._trouble),
                keys=len(self._set.keys),
            )
        elif self._trouble is None and before is not None:
            log.info("the keys of tokens are renewed again", source=self._source.name, keys=len(self._set.keys))

    def _take(self, fresh: KeySet) -> None:
        old, self._set = self._set, fresh
        self._trouble = None if fresh.keys else KeySetError("; ".join(("no key in it is of use", *fresh.unusable)))
        if fresh.unusable and fresh.unusable != old.unusable:
            log.warning("keys of tokens were passed over", source=self._source.name, why=fresh.unusable)
        if fresh.keys == old.keys:
            return
        log.info("the keys of tokens changed", source=self._source.name, keys=len(fresh.keys))
        if _lacks(fresh.keys, old.keys):
            self._on_removal()


def _lacks(fresh: Mapping[str | None, Key], old: Mapping[str | None, Key]) -> bool:
    return any(fresh.get(kid) != key for kid, key in old.items())


def _why(trouble: Exception) -> str:
    """What went wrong, without a path said twice."""
    return trouble.strerror or type(trouble).__name__ if isinstance(trouble, OSError) else str(trouble)
