"""Gives a subscriber's handler messages as Kafka would, without Kafka."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
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
        self._usage = usage or recorded()
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
        task = asyncio.create_task(_cancel_at(self._hand_over(placed), suspensions))
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
        given: Any = self._adapt(message)
        try:
            # What nobody publishes yet is not part of the contract, so that the handler reads it says nothing.
            if self._usage is not None and message in _known():
                with self._usage.recording():
                    await self._handler(track(given, message, self._usage))
            else:
                await self._handler(given)
        except Exception as error:
            error.add_note(f"while handling {message.message}, version {message.header.get('ce_orgversion')}")
            raise


@cache
def _known() -> set[Message]:
    return {*golden_messages()}


async def _cancel_at(work: Coroutine[Any, Any, None], suspensions: int) -> None:
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
