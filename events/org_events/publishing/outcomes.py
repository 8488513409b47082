"""Outcomes on their way in: which are expected, which came, and who gets them. No I/O.

Looking for one header decides the outcome of a record, so results of other publishers cost little; only the task that
waits parses its JSON. Declined: a results topic a publisher, which the relay would have to know.
"""

import asyncio
import json
import re
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from org_events.publishing.errors import ClientError
from org_events.publishing.interest import ANY, Interest, Keys

UNCLAIMED_MAX: Final = 10_000
"""Commands sent without waiting whose outcome is kept for a later question; at about 1 KB each."""
_NOT_JOURNALED: Final = b'"position":null'
"""In a result that any request under an id may get: parked, or rejected because the id belongs to another one."""

_MAY_FOLLOW: Final = re.compile(rb'"final"\s*:\s*false')
"""In a result that is not final, and possibly in one that is, deeper."""


class Expected:
    """The outcomes somebody waits for, and a bounded number of those that may be asked for later."""

    def __init__(self, unclaimed_max: int = UNCLAIMED_MAX) -> None:
        self.interest = Interest()
        """The partitions in which they may be."""
        self._unclaimed_max = unclaimed_max
        self._futures: dict[bytes, asyncio.Future[bytes]] = {}
        self._requests: dict[bytes, int] = {}
        """What was sent last under the ids of `_futures`."""
        self._others: dict[bytes, bytes] = {}
        """Outcomes of other requests under these ids; there are few."""
        self._shared: set[bytes] = set()
        """Those of `_futures` that more than one may wait for; there are few."""
        self._unclaimed: dict[bytes, None] = {}
        """In the order in which they were left; the first to go when there are too many."""

    def __len__(self) -> int:
        return len(self._futures)

    async def wait_turn(self, command_id: UUID, request: int, deadline: float) -> bytes | None:
        """Wait until no other request under this id is undecided; its outcome, or None where there was none.

        A result names its command id alone. Of two requests under one id the second is rejected, and which of the two
        results came first would decide who gets which.

        Args:
            command_id: Of both.
            request: The same for the same type and body.
            deadline: By the loop's clock.

        Raises:
            TimeoutError: It is undecided still.
        """
        key = _key(command_id)
        others: bytes | None = None
        while (other := self._other(key, request)) is not None:
            if not other.done():
                others = self._others.get(key) or others
                await asyncio.wait({other}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
                if not other.done():
                    raise TimeoutError
            outcome: bytes = b"" if other.exception() else other.result()
            if outcome and _NOT_JOURNALED not in outcome:
                others = outcome
            if self._futures.get(key) is other:
                break
        return others

    def must_wait(self, command_id: UUID, request: int) -> bool:
        """Whether `wait_turn` has something to do."""
        return self._other(_key(command_id), request) is not None

    def _other(self, key: bytes, request: int) -> asyncio.Future[bytes] | None:
        """The outcome of another request under this id."""
        other = self._futures.get(key)
        return None if other is None or self._requests.get(key, request) == request else other

    def expect(
        self, command_id: UUID, request: int = 0, others: bytes | None = None, keys: Keys = ANY
    ) -> asyncio.Future[bytes]:
        """The JSON of the next result of a command that is about to be sent.

        An outcome that came before belongs to an earlier sending, and is dropped.

        Args:
            command_id: Of the command.
            request: As for `wait_turn`, which comes first.
            others: What `wait_turn` gave. Whoever sent that other request again gets a copy of it, byte for byte,
                which is no answer to this one.
            keys: Of its result.
        """
        key = _key(command_id)
        self._requests[key] = request
        if others is not None:
            self._others[key] = others
        future = self._futures.get(key)
        if future is not None and future.done():
            del self._futures[key]
        self.interest.hold(key, keys)
        return self.claim(command_id)

    def knows(self, command_id: UUID) -> bool:
        """Whether its outcome is expected, or here."""
        return _key(command_id) in self._futures

    def claim(self, command_id: UUID) -> asyncio.Future[bytes]:
        """The JSON of the result of a command: the one that came already, or else the next."""
        key = _key(command_id)
        self._unclaimed.pop(key, None)
        future = self._futures.get(key)
        if future is None:
            future = self._futures[key] = asyncio.get_running_loop().create_future()
            if key not in self.interest:
                self.interest.hold(key, ANY)
        else:
            self._shared.add(key)
        return future

    def withdraw(self, command_id: UUID) -> None:
        """It was not sent: nothing will come, unless it was sent before, or is by another."""
        key = _key(command_id)
        if key in self._shared or key not in self._futures:
            self.leave(command_id)
        else:
            self._drop(key)

    def leave(self, command_id: UUID) -> None:
        """Nobody waits any more; remember the outcome for a while."""
        key = _key(command_id)
        if key not in self._futures:
            return
        self._unclaimed.pop(key, None)
        self._unclaimed[key] = None
        if len(self._unclaimed) > self._unclaimed_max:
            oldest = next(iter(self._unclaimed))
            self._drop(oldest)

    def forget(self, command_id: UUID, outcome: asyncio.Future[bytes], *, is_final: bool = True) -> None:
        """This outcome was handed out; the command may have been sent again since, and the next one be waited for.

        Args:
            command_id: Of the command.
            outcome: What was handed out.
            is_final: Whether none follows. One that does is expected from here on, or came already.
        """
        key = _key(command_id)
        future = self._futures.get(key)
        if future is outcome:
            keys = self.interest.keys_of(key)
            self._drop(key)
            if not is_final:
                self.interest.hold(key, keys)
                self.claim(command_id)
                self.leave(command_id)
        elif not is_final and future is not None and future.done():
            self.leave(command_id)

    def _drop(self, key: bytes) -> None:
        self._futures.pop(key, None)
        self._requests.pop(key, None)
        self._others.pop(key, None)
        self._unclaimed.pop(key, None)
        self._shared.discard(key)
        self.interest.release(key)

    def settle(self, key: bytes, value: bytes) -> None:
        """A result came; of several for one command the first counts, until a final one follows a parked one."""
        future = self._futures.get(key)
        if future is None or self._others.get(key) == value:
            return
        if future.done():
            if future.exception() is not None or _is_final(future.result()):
                return
            # Whoever waits has the parked one and may not have run yet; this is for who asks next.
            future = self._futures[key] = asyncio.get_running_loop().create_future()
        future.set_result(value)
        if not _MAY_FOLLOW.search(value) or _is_final(value):  # most need no parsing to tell
            self.interest.release(key)

    def fail(self, command_id: UUID, outcome: asyncio.Future[bytes], error: BaseException) -> None:
        """Its command was not confirmed: whoever waits need not wait until the time is up."""
        if outcome.done():
            return
        outcome.set_exception(error)
        outcome.exception()  # marks it as seen: nobody may be waiting
        key = _key(command_id)
        if self._futures.get(key) is outcome:
            self.interest.release(key)

    def fail_all(self, why: str) -> None:
        """Results can't be read for now: all waiting callers get a `ClientError`."""
        for key, future in self._futures.items():
            self.interest.release(key)
            if not future.done():
                future.set_exception(ClientError(why))
                future.exception()  # marks it as seen: nobody may be waiting
        self._futures.clear()
        self._unclaimed.clear()
        self._requests.clear()
        self._others.clear()
        self._shared.clear()


async def wait_until(future: asyncio.Future[Any], deadline: float) -> None:
    """Wait until `future` is done or the time is up; neither cancels it, others may wait for it too."""
    if not future.done():
        await asyncio.wait({future}, timeout=max(0.0, deadline - asyncio.get_running_loop().time()))


def _is_final(result: bytes) -> bool:
    try:
        return json.loads(result).get("final") is not False
    except (ValueError, AttributeError):
        return True


@lru_cache(4_096)
def _key(command_id: UUID) -> bytes:
    """As in a result's header; asked for four times a command."""
    return str(command_id).encode()
