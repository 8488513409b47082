"""Nothing a relay leaves behind may speak up later."""

import asyncio
import gc
from collections.abc import AsyncGenerator

import pytest


@pytest.fixture(autouse=True)
async def nothing_left_unretrieved() -> AsyncGenerator[None]:
    """Fail a test that leaves a future whose error nobody looked at, or a task that was destroyed pending."""
    troubles: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context["message"]))
    yield
    gc.collect()
    assert troubles == []
