"""Where a page ended, as an opaque text.

It goes with a digest over itself and over what was asked, so that a cursor that was changed, cut or taken along to
another question is rejected and never leads to a page nobody asked for. It is no secret and protects nothing: what a
page may show is decided again each time.
"""

import base64
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Final
from uuid import UUID

import orjson

from org_service.edge.http.problems import bad_request
from org_service.store.directory import is_storable

_DIGEST_BYTES: Final = 8
CURSOR_CHARS_MAX: Final = 2_000
"""A folded name of 200 characters in UTF-8 and Base64 is at most half of that."""


def write_cursor(question: str, after: tuple[str, UUID]) -> str:
    """The cursor that continues after an entry.

    Args:
        question: What was asked, as a text: search, filter, and last the order.
        after: Sort key and id.
    """
    content = orjson.dumps([after[0], str(after[1])])
    return base64.urlsafe_b64encode(_digest(question, content) + content).decode().rstrip("=")


def read_cursor(question: str, cursor: str) -> tuple[str, UUID]:
    """The sort key and id that a cursor of this question continues after.

    Raises:
        ProblemError: It is none of ours, or belongs to another question (400).
    """
    after = _after(question, cursor)
    if after is None:
        raise bad_request(
            "The cursor does not belong to this list: pass `next` unchanged, with the same search, access and order_by."
        )
    return after


def _after(question: str, cursor: str) -> tuple[str, UUID] | None:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        digest, content = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if digest != _digest(question, content):
            return None
        key, org_id = orjson.loads(content)
        # Whoever knows how a digest is made can make one up: what the database can't compare with isn't read on.
        if not isinstance(key, str) or not is_storable(key):
            return None
        if question.endswith("created_at"):
            moment = datetime.fromisoformat(key)
            if moment.tzinfo is None:
                return None
            key = moment.astimezone(UTC).isoformat()
        return key, UUID(org_id)
    except (ValueError, TypeError, AttributeError, OverflowError):
        return None


def _digest(question: str, content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES, key=blake2b(question.encode(), digest_size=32).digest()).digest()
