"""A source of keys that says what a test wants, a clock that it moves, and keys that end with it."""

import asyncio
import math
import time

from org_service.auth import keys as module
from org_service.auth.keys import Keys
from org_service.errors import RetryError
from tests.support.issuer import Signer, ed_key

OLD, NEW, NEWER = ed_key("old"), ed_key("new"), ed_key("newer")
AWAY = RetryError("no answer (ConnectError)")


class Scripted:
    """A source that says what the test wants, and notes when it was asked."""

    name = "https://issuer.example/jwks.json"

    def __init__(self, answer: bytes | Exception, *, retry_s: float = 0, renew_after_s: float = math.inf) -> None:
        self.answer: bytes | Exception = answer
        self.retry_s = retry_s
        self.renew_after_s = renew_after_s
        self.read_at: list[float] = []
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()
        self.closed = False

    @property
    def reads(self) -> int:
        return len(self.read_at)

    async def read(self) -> bytes | None:
        self.read_at.append(time.monotonic())
        self.asked.set()
        await self.open.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        self.closed = True

    async def asked_again(self) -> None:
        """Wait until it has been asked once more, and has answered."""
        self.asked.clear()
        await asyncio.wait_for(self.asked.wait(), 10)
        await asyncio.sleep(0)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def time(self) -> float:
        return self.now_s


class Opened:
    """Keys that end with the test."""

    def __init__(self) -> None:
        self.all: list[Keys] = []
        self.removals = 0

    def __call__(self, source: Scripted, stale_max_s: float = 86_400) -> Keys:
        keys = Keys(source, self.count, stale_max_s=stale_max_s)
        self.all.append(keys)
        return keys

    def count(self) -> None:
        self.removals += 1


def verifies(keys: Keys, signer: Signer, at_s: float | None = None) -> bool:
    """Whether the signer's key may verify a token of that moment, or of now."""
    moment_s = module.time.time() if at_s is None else at_s
    return any(key.public == signer.private.public_key() for key, _ in keys.find_fitting(signer.kid, moment_s))


async def soon(keys: Keys) -> None:
    """Ask for a read, and wait for its end."""
    await asyncio.wait_for(keys.wait_for_read(), 10)
