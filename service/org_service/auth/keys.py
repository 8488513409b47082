"""The keys in force: read at start, kept fresh in the background, read soon for a token that none of them verifies.

Nobody waits for keys that are merely old. A set that can't be fetched or read leaves the last good one in force, for
`jwks_stale_max_s`: an issuer's outage must not become ours, but a key that was withdrawn meanwhile must not verify for
ever. Only a token that no key verifies has to wait then, and it is never rejected for it.

A set that can be read and holds no key for signatures withdraws all keys: that is how an issuer whose keys leaked says
so. It may be a mistake of the issuer's as well, so tokens wait then and none is rejected, and the log has an error.

A 401 in the journal is final, so it must be right: a token is rejected for its key only once the set was
read *after* the token was used. Made-up tokens bring such a read about at most once in `jwks_retry_s`, however many
there are, and one read answers all that came before it.

A key that the issuer took out of its set verifies what was used before the last read that listed it, and nothing later.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from org_service.auth.key_set import NO_KEYS, Key, KeySet, KeySetError, read_key_set
from org_service.auth.key_sources import KeySource
from org_service.errors import ConfigurationError, RetryError
from org_service.telemetry.logs import get_logger
from org_service.telemetry.metrics import KEYS_READ_AT, KEYS_READS

WITHDRAWN_MAX: Final = 100
"""Keys remembered after they were withdrawn, for records that waited meanwhile: years of rotations."""
PATIENCE_S: Final = 5.0
"""Longest wait for a read to begin, of a caller who needs an answer."""
WAITING_MAX: Final = 100
"""Callers who wait for one read; anybody may be among them, so they must not be many."""

log = get_logger(__name__)


class _Withdrawn(NamedTuple):
    kid: str | None
    key: Key
    until_s: float
    """When the last read that listed it began, seconds since 1970."""


class Keys:
    """The keys of one source. Make it inside the loop that uses it.

    Args:
        source: Where they come from.
        on_removal: Called when a key is gone from the set.
        stale_max_s: How long keys are used that can't be read again.
    """

    def __init__(self, source: KeySource, on_removal: Callable[[], None], *, stale_max_s: float) -> None:
        self._source = source
        self._on_removal = on_removal
        self._stale_max_s = stale_max_s
        self._set: KeySet = NO_KEYS
        self._withdrawn: deque[_Withdrawn] = deque(maxlen=WITHDRAWN_MAX)
        self._trouble: Exception | None = None
        """Why the last read brought no keys; None where it did."""
        self._began_s = self._began_at_s = -math.inf
        """When the last read that brought keys began, by the monotonic clock and in seconds since 1970."""
        self.reads = 0
        """How many reads brought keys."""
        self._ended = False
        """Whether it was said that the keys are too old to be used."""
        self._looked_s = -math.inf
        """When the last read for a token began."""
        self._wanted = asyncio.Event()
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Of the next read that ends."""
        self._waiting = 0
        self._renewing: asyncio.Task[None] | None = None

    @property
    def good_until_s(self) -> float:
        """The keys verify what is used before this moment, seconds since 1970; each read moves it."""
        return self._began_at_s + self._stale_max_s

    async def start(self) -> None:
        """Read the keys for the first time and keep them fresh from now on. May be called again after an error.

        Raises:
            ConfigurationError: What is there can't be used.
            RetryError: They can't be fetched now; nothing was started.
        """
        await self._read()
        trouble = self._trouble
        if isinstance(trouble, RetryError):
            raise RetryError(f"The token keys cannot be fetched from {self._source.name}: {trouble}.")
        if trouble is not None:
            raise ConfigurationError(f"The token keys in {self._source.name} cannot be used: {_why(trouble)}.")
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._keep_fresh(), name="renew the keys of tokens")

    def find_fitting(self, kid: str | None, at_s: float) -> Iterator[tuple[Key, bool]]:
        """The keys that may have signed a token: those with its `kid`, and those without any.

        Args:
            kid: As the token says.
            at_s: When the token was used, seconds since 1970.

        Yields:
            A key, and whether it verifies later tokens too.
        """
        kids = (None,) if kid is None else (kid, None)
        if at_s < self.good_until_s:
            for each in kids:
                for key in self._set.keys.get(each, ()):
                    yield key, True
        for withdrawn in self._withdrawn:
            if withdrawn.kid in kids and at_s <= withdrawn.until_s:
                yield withdrawn.key, False

    def were_read_since(self, since_s: float) -> bool:
        """Whether a read that brought keys began at that moment, by the monotonic clock, or later."""
        return self._began_s >= since_s

    def request_read(self) -> None:
        """See to it that the set is read again, as soon as that may be. Costs nothing to repeat."""
        self._wanted.set()

    async def wait_for_read(self) -> None:
        """Wait for the end of the next read; one may be under way.

        Raises:
            RetryError: It brought no keys, or it is a long way off, or too many wait for it.
        """
        wait_s = self._wait_s()
        if self._trouble is not None and wait_s > 0:
            raise self._outage(self._trouble)
        if wait_s > PATIENCE_S or self._waiting >= WAITING_MAX:
            raise RetryError(
                "No key verifies the token. The keys are read again soon, and may then include the token's."
            )
        self.request_read()
        self._waiting += 1
        try:
            await asyncio.shield(self._done)
        finally:
            self._waiting -= 1
        if self._trouble is not None:
            raise self._outage(self._trouble)

    async def check(self) -> str:
        """The keys and their age, as text. An issuer that is away is only mentioned as long as its keys are in force.

        Raises:
            RetryError: No keys are.
        """
        age_s = round(max(0.0, time.time() - self._began_at_s)) if self.reads else 0
        count = _count(self._set)
        known = f"{count} {'key' if count == 1 else 'keys'}, read {age_s} s ago"
        if self._trouble is None and self.reads:
            return known
        why = f"{self._source.name} cannot be read: {_why(self._trouble)}" if self._trouble else "not read yet"
        left_s = round(self.good_until_s - time.time()) if self.reads else 0
        if left_s <= 0 or not self._set.keys:
            raise RetryError(f"{why}; tokens wait")
        return f"{why}; {known}, valid for {left_s} s more"

    async def close(self) -> None:
        """Stop keeping the keys fresh; may be called again. Whoever waits for a read is cancelled."""
        task, self._renewing = self._renewing, None
        self._done.cancel()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._source.close()

    def _wait_s(self) -> float:
        """Until the next read for a token may begin."""
        return max(0.0, self._looked_s + self._source.retry_s - time.monotonic())

    def _outage(self, trouble: Exception) -> RetryError:
        return RetryError(
            f"A token has a key that is not known yet, and the key set at {self._source.name} cannot be fetched "
            f"or used now: {_why(trouble)}."
        )

    async def _keep_fresh(self) -> None:
        # A period and not a `Patience`: after a failure the last keys are in force, and who wants others cuts it short.
        while True:
            await self._rest()
            await self._read()

    async def _rest(self) -> None:
        """Wait until the keys are old, or wanted; in an outage not so long."""
        in_trouble = self._trouble is not None
        renew_s, retry_s = self._source.renew_after_s, self._source.retry_s
        try:
            async with asyncio.timeout(min(renew_s, retry_s or renew_s) if in_trouble else renew_s):
                await self._wanted.wait()
                await asyncio.sleep(self._wait_s())
        except TimeoutError:
            if not in_trouble:
                return
        self._looked_s = time.monotonic()

    async def _read(self) -> None:
        """Read the set and accept it; what goes wrong is kept as the trouble, and logged once."""
        self._wanted.clear()  # here and not later: who wants it from now on wants the next one
        before, began_s, began_at_s = self._trouble, time.monotonic(), time.time()
        try:
            content = await self._source.read()
            if content is not None:
                self._accept(read_key_set(content))
        except (RetryError, KeySetError, OSError) as error:
            self._trouble = error
        except Exception as error:  # a defect must not end the renewing
            log.exception("the token keys cannot be renewed: a defect", source=self._source.name)
            self._trouble = error
        if self._trouble is None:
            self._began_s, self._began_at_s = began_s, began_at_s
            self.reads += 1
            KEYS_READ_AT.set(began_at_s)
        KEYS_READS.labels("read" if self._trouble is None else "failed").inc()
        self._report(before)
        done, self._done = self._done, asyncio.get_running_loop().create_future()
        if not done.done():
            done.set_result(None)

    def _report(self, before: Exception | None) -> None:
        """Log what changed with a read."""
        told = {"source": self._source.name, "keys": _count(self._set)}
        trouble = self._trouble
        if trouble is None:
            self._ended = False
            if before is not None:
                log.info("the token keys are being renewed again", **told)
            return
        if before is None or _why(before) != _why(trouble):
            why = _why(trouble)
            if self._set.keys:
                log.warning("the token keys cannot be renewed: the last ones stay in force", why=why, **told)
            elif self.reads:
                log.error("no token key is in force any more: tokens wait for one", why=why, **told)
            else:
                log.warning("the token keys cannot be read yet: tokens wait for them", why=why, **told)
        if self._set.keys and not self._ended and time.time() >= self.good_until_s:
            self._ended = True
            log.error("the token keys have expired: tokens wait for new ones", why=_why(trouble), **told)

    def _accept(self, fresh: KeySet) -> None:
        old, self._set = self._set, fresh
        self._trouble = None if fresh.keys else KeySetError("; ".join(("it has no usable key", *fresh.unusable)))
        if fresh.unusable and fresh.unusable != old.unusable:
            log.warning("token keys were skipped", source=self._source.name, why=fresh.unusable)
        if fresh.keys == old.keys:
            return
        log.info("the token keys changed", source=self._source.name, keys=_count(fresh))
        gone = [
            _Withdrawn(kid, key, self._began_at_s)
            for kid, keys in old.keys.items()
            for key in keys
            if key not in fresh.keys.get(kid, ())
        ]
        if gone:
            self._withdrawn.extend(gone)
            self._on_removal()


def _count(keys: KeySet) -> int:
    return sum(map(len, keys.keys.values()))


def _why(trouble: Exception) -> str:
    """What went wrong, without a path said twice."""
    if isinstance(trouble, OSError):
        return trouble.strerror or type(trouble).__name__
    return str(trouble) or type(trouble).__name__
