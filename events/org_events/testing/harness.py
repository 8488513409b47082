"""Gives a subscriber's handler messages as Kafka would, without Kafka."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any, Generic, TypeVar, overload

from org_events.testing.changes import DeliveredChange, to_change
from org_events.testing.golden import Message, golden_messages
from org_events.testing.tracking import track
from org_events.testing.usage import Usage, recorded

T = TypeVar("T")


class SubscriberHarness(Generic[T]):
    """Hands messages to a handler, one after the other.

    Args:
        handler: An async function of a change.
        adapt: Makes what the handler is given of a message; by default a `DeliveredChange`. For a handler that reads
            records itself: `lambda message: message`.
        usage: Notes what the handler reads of golden messages; by default what `pytest --orgs-usage` records.
    """

    @overload
    def __init__(
        self: "SubscriberHarness[DeliveredChange]",
        handler: Callable[[DeliveredChange], Awaitable[object]],
        *,
        usage: Usage | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        handler: Callable[[T], Awaitable[object]],
        *,
        adapt: Callable[[Message], T],
        usage: Usage | None = None,
    ) -> None: ...
    def __init__(
        self,
        handler: Callable[[Any], Awaitable[object]],
        *,
        adapt: Callable[[Message], Any] = to_change,
        usage: Usage | None = None,
    ) -> None:
        self._handler = handler
        self._adapt = adapt
        self._usage = usage
        self._offset = 0

    async def deliver(self, messages: Iterable[Message]) -> None:
        """Each once, at the next offset.

        Raises:
            Exception: What the handler raised; `Message` and offset are in its notes.
        """
        for message in messages:
            await self._hand_over(self._place(message))

    async def deliver_half(self, message: Message, suspensions: int) -> bool:
        """Cancel the handler where it waits for the `suspensions`-th time, as the end of a process would.

        The message keeps its offset, so that it comes again.

        Returns:
            Whether the handler came to its end before.
        """
        placed = replace(message, offset=self._offset)
        task = asyncio.create_task(cancel_at(self._hand_over(placed), suspensions))
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()
        return not task.cancelled()

    def recreate_topics(self) -> None:
        """Offsets begin again, as where a topic was deleted and created."""
        self._offset = 0

    def _place(self, message: Message) -> Message:
        self._offset += 1
        return replace(message, offset=self._offset - 1)

    async def _hand_over(self, message: Message) -> None:
        try:
            with watched(self._adapt(message), message, self._usage) as given:
                await self._handler(given)
        except Exception as error:
            note_message(error, message)
            raise


@contextmanager
def watched(given: Any, message: Message | None, usage: Usage | None = None) -> Generator[Any]:
    """What a handler is to be given, so that it is noted what it reads of it, where that is wanted.

    What nobody publishes yet is not part of the contract, so that a handler reads it says nothing.
    """
    usage = usage or recorded()
    if usage is None or message is None or message not in _known():
        yield given
        return
    with usage.recording():
        yield track(given, message, usage)


def note_message(error: Exception, message: Message | None) -> None:
    """Note with an error which message was handled."""
    known = "a computed deletion" if message is None else message.message
    version = "unknown" if message is None else message.header.get("ce_orgversion")
    error.add_note(f"while handling {known}, version {version}")


@cache
def _known() -> set[Message]:
    return {*golden_messages()}


async def cancel_at(work: Coroutine[Any, Any, None], suspensions: int) -> None:
    """Await it, and cancel the task that does so when it waits for the `suspensions`-th time."""
    await _Counted(work, suspensions)


class _Counted:
    """Awaits a coroutine, and cancels the task around it when it waits for the n-th time."""

    def __init__(self, work: Coroutine[Any, Any, None], suspensions: int) -> None:
        self._work = work
        self._left = suspensions

    def __await__(self) -> Generator[Any, Any, None]:
        steps = self._work.__await__()
        step: Callable[[], Any] = partial(next, steps)
        while True:
            try:
                waited_for = step()
            except StopIteration:
                return
            self._left -= 1
            task = asyncio.current_task()
            if self._left == 0 and task is not None:
                task.cancel()
            try:
                yield waited_for
                step = partial(next, steps)
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's
                step = partial(steps.throw, error)
