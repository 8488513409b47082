"""The users of parked commands in place of their tokens.

Apart from the columns (0009): whoever alters a table holds everybody up until the migration ends, and the worker reads
this table with each batch. Here only rows are locked.

Revision ID: 0012
Revises: 0011
"""

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

ROWS_AT_ONCE: Final = 500


def upgrade() -> None:
    """Take the tokens out of the rows that are there."""
    for row in _rows_with_tokens():
        _scrub(*row)


def _rows_with_tokens() -> Iterator[Any]:
    after = 0
    page = sa.text(
        "SELECT id, headers, detail, command_id IS NOT NULL FROM parked "
        "WHERE id > :after AND headers ILIKE '%authorization%' ORDER BY id LIMIT :rows"
    )
    while rows := op.get_bind().execute(page, {"after": after, "rows": ROWS_AT_ONCE}).all():
        yield from rows
        after = rows[-1].id


def _scrub(parked_id: int, headers: str, detail: str, is_command: bool) -> None:
    """Keep the user of a token in its place. A command was parked only after its token had been verified."""
    pairs: list[tuple[str, str | None]] = json.loads(headers)
    tokens = [content for name, content in pairs if name.lower() == "authorization"]
    user = _user(tokens[-1]) if is_command and tokens and tokens[-1] else None
    kept = [pair for pair in pairs if "authorization" not in pair[0].lower()]
    values = {
        "id": parked_id,
        "headers": json.dumps(kept, separators=(",", ":"), ensure_ascii=False),
        "detail": detail if user else f"{detail}; its token was not verified, and is not kept",
        "actor": user,
        "by": "token" if user else None,
    }
    statement = "UPDATE parked SET headers = :headers, detail = :detail, actor = :actor, authenticated_by = :by"
    op.get_bind().execute(sa.text(f"{statement} WHERE id = :id"), values)


def _user(content: str) -> str | None:
    """The `sub` of a token; None where it can't be read."""
    try:
        payload = base64.b64decode(content).decode().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return str(claims["sub"])
    except (ValueError, LookupError, TypeError):
        return None


def downgrade() -> None:
    """Leave the rows as they are: the tokens are gone for good."""
