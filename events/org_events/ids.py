"""Ids to choose: of commands, in order of time, and of organizations, from the ids that a publisher has already."""

import os
import secrets
import threading
import time
import unicodedata
from collections.abc import Callable
from typing import Final
from uuid import UUID, uuid5

ORG_ID_NAMESPACE: Final = UUID("575fe080-6ce4-5433-b852-5f151b7464c3")
"""Of `org_id_for`; must never change."""

_COUNTER_BITS: Final = 42
_RANDOM_BITS: Final = 32
_VERSION_AND_VARIANT: Final = 7 << 76 | 0b10 << 62


class TimeOrderedIds:
    """Makes UUIDv7s, each greater than those before, in whatever thread, though the system's clock be set back.

    48 bits of milliseconds, a counter of 42 and 32 random bits (RFC 9562, sections 5.7 and 6.2, method 1). `uuid.uuid7`
    of Python 3.14 has the same layout, but promises no order between threads.

    Args:
        time_ns: The clock.
        random: Gives so many random bits.
    """

    def __init__(
        self, time_ns: Callable[[], int] = time.time_ns, random: Callable[[int], int] = secrets.randbits
    ) -> None:
        self._time_ns = time_ns
        self._random = random
        self._lock = threading.Lock()
        self._milliseconds = 0
        self._count = 0

    def make(self) -> UUID:
        """The next one."""
        milliseconds, count = self._tick()
        upper, lower = count >> 30, count & 0x3FFF_FFFF
        value = milliseconds << 80 | upper << 64 | lower << _RANDOM_BITS | self._random(_RANDOM_BITS)
        return UUID(int=value | _VERSION_AND_VARIANT)

    def _tick(self) -> tuple[int, int]:
        with self._lock:
            now = self._time_ns() // 1_000_000
            if now > self._milliseconds:
                self._begin(now)
            else:
                self._count += 1
                if self._count >> _COUNTER_BITS:
                    self._begin(self._milliseconds + 1)
            return self._milliseconds, self._count

    def _begin(self, milliseconds: int) -> None:
        """The upper bit of a new count is 0, so that what follows in the same millisecond has room."""
        self._milliseconds, self._count = milliseconds, self._random(_COUNTER_BITS - 1)


_ids = TimeOrderedIds()


def _start_over() -> None:
    """A forked process must not count on from where its parent does, nor inherit a lock that somebody holds."""
    global _ids  # noqa: PLW0603 - it is the process's one
    _ids = TimeOrderedIds()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_over)


def uuid7() -> UUID:
    """A new UUIDv7, greater than all that this process made before, in whatever thread.

    Random ids dirty a page of the index for each insert; these let it grow at its end.
    """
    return _ids.make()


def org_id_for(namespace: str | UUID, own_id: str | int | UUID) -> UUID:
    """The id of the organization that you know by an id of your own: always the same one, so nothing has to be stored.

    UUIDv5 (RFC 9562, section 5.5) in `ORG_ID_NAMESPACE` of `namespace`, a NUL character and `own_id`, in UTF-8. Text is
    brought to NFC, a number is its decimal digits (42 and "42" are one id), a UUID its 36 lower-case characters. Case
    counts: "a1" and "A1" are two ids.

    Args:
        namespace: Whose ids these are, such as "/billing/customers"; two systems that count from 1 need two.
        own_id: Your id. It must never come to mean another organization.

    Raises:
        ValueError: One of them is empty, begins or ends with white space, or has a character that isn't printable.
        TypeError: The id is a bool.
    """
    if isinstance(own_id, bool):
        raise TypeError("own_id must be text, a number or a UUID, not a bool")
    return uuid5(ORG_ID_NAMESPACE, f"{_canonical('namespace', namespace)}\0{_canonical('own_id', own_id)}")


def _canonical(what: str, given: str | int | UUID) -> str:
    text = unicodedata.normalize("NFC", str(given))
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError(f"{what} must be printable text without white space at its ends, not {given!r}")
    return text
