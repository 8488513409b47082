"""Who was verified, in place of the tokens of parked commands; and no more of what is parked than each role needs.

Revision ID: 0009
Revises: 0008
"""

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

ROWS_AT_ONCE: Final = 500
_EDGE: Final = "command_id, org_id, request_digest, state, recorded_at"
_READER: Final = (
    'id, topic, partition, "offset", broker_time, org_id, command_id, request_digest, reason, detail, attempts, state, '
    "actor, authenticated_by, recorded_at"
)


def upgrade() -> None:
    """Add the columns, take the tokens out of the rows that are there, and grant columns instead of the table.

    Rolling: a worker of the release before goes on to park tokens, which no role but the worker's can read any more.
    """
    op.add_column("parked", sa.Column("actor", sa.Text))
    op.add_column("parked", sa.Column("authenticated_by", sa.Text))
    op.create_check_constraint("parked_authenticated_by_check", "parked", "authenticated_by IN ('token', 'publisher')")
    for row in _rows_with_tokens():
        _scrub(*row)
    op.execute("REVOKE SELECT ON parked FROM orgs_edge, orgs_reader")
    op.execute(f"GRANT SELECT ({_EDGE}) ON parked TO orgs_edge")
    op.execute(f"GRANT SELECT ({_READER}) ON parked TO orgs_reader")


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
    """Take the columns and the rights by column back; the tokens are gone for good."""
    op.execute(f"REVOKE SELECT ({_EDGE}) ON parked FROM orgs_edge")  # noqa: S608 - constants
    op.execute(f"REVOKE SELECT ({_READER}) ON parked FROM orgs_reader")  # noqa: S608 - constants
    op.execute("GRANT SELECT ON parked TO orgs_edge, orgs_reader")
    op.drop_constraint("parked_authenticated_by_check", "parked")
    op.drop_column("parked", "authenticated_by")
    op.drop_column("parked", "actor")
