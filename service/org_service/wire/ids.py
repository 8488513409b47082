"""Ids from text: UUIDs, in their one form of 36 characters, and trace contexts."""

import re
from collections.abc import Callable
from typing import Final
from uuid import UUID

from asyncpg.pgproto import pgproto

_UUID: Final = re.compile(rb"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, section 3.2."""

make_uuid: Final[Callable[[str], UUID]] = pgproto.UUID
"""The driver's kind of `uuid.UUID`: equal to any other, but made, hashed, written and sent several times as fast."""


def is_uuid(raw: bytes) -> bool:
    """Whether `read_uuid` reads it; for where the value itself is not needed."""
    return _UUID.fullmatch(raw) is not None


def read_uuid(raw: bytes | None) -> UUID | None:
    """The UUID of 36 characters, in either case; None for anything else (RFC 9562, section 4)."""
    if raw is None or not is_uuid(raw):
        return None
    return make_uuid(raw.decode("ascii"))


def read_traceparent(text: str) -> str | None:
    """The `traceparent` to hand on; None where it must be ignored, as the W3C asks."""
    return text if _TRACEPARENT.fullmatch(text) else None
