"""The token that a command carries: given, or asked for each time."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from org_events.publishing.errors import TokenUnavailable

TokenSource = str | Callable[[], str | Awaitable[str]]
"""A JWT, or a function that gives a fresh one, now or when it is awaited. It is called for each command."""


async def authorization_of(source: TokenSource | None, deadline: float) -> str | None:
    """The header `authorization` of a command; None without a token.

    Raises:
        TokenUnavailable: None came until the deadline, by the loop's clock.
    """
    if source is None:
        return None
    token = source() if callable(source) else source
    if isawaitable(token):
        waiting = asyncio.timeout_at(deadline)
        try:
            async with waiting:
                token = await token
        except TimeoutError as error:
            if not waiting.expired():
                raise  # of the function itself
            raise TokenUnavailable("No token came in time; nothing was sent.") from error
    return f"Bearer {token}"
