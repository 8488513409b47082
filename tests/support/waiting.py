"""To wait for what gives no signal: ask again and again, within a bound. Where there is a signal, wait for that."""

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable

WITHIN_S = 30.0
"""Ample on a machine that is busy with other things, too: whatever works takes a small part of it."""
POLL_S = 0.01


async def until(ask: Callable[[], object], wanted: object = None, timeout_s: float = WITHIN_S) -> None:
    """Return when the answer is the one that is wanted; when it is true, where none is named.

    Args:
        ask: Gives an answer, or something to await for one.
        wanted: The answer, if not any that is true.
        timeout_s: For all of it.

    Raises:
        TimeoutError: It isn't in time; the message shows the last answer.
    """
    answer: object = None
    bound = asyncio.timeout(timeout_s)
    try:
        async with bound:
            while True:
                asked = ask()
                answer = await asked if isawaitable(asked) else asked
                if answer if wanted is None else answer == wanted:
                    return
                await asyncio.sleep(POLL_S)
    except TimeoutError as error:
        if not bound.expired():
            raise
        expected = "true" if wanted is None else repr(wanted)
        raise TimeoutError(f"the answer is {answer!r}, not {expected}, after {timeout_s} s") from error


def wait_for(holds: Callable[[], object], what: str, timeout_s: float = WITHIN_S, poll_s: float = POLL_S) -> None:
    """As `until`, for tests and threads without an event loop.

    Raises:
        TimeoutError: It doesn't hold in time; the message names `what`.
    """
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} in {timeout_s} s")
        time.sleep(poll_s)
