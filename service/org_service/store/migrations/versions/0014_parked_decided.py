"""What operators decide about parked records: by which run, and when; and their right to carry it out.

Revision ID: 0014
Revises: 0013
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

_DECIDED: Final = "operation_id, ended_at"
_JUDGED: Final = "reason, detail, attempts, state, org_id, command_id, request_digest, actor, authenticated_by"
"""What is known of a record once it is read, and tried, again; its bytes and coordinates never change."""
_GRANTS: Final = (
    "INSERT, UPDATE ON organization",
    "INSERT ON journal",
    "UPDATE (position) ON journal_head",
    f"UPDATE ({_JUDGED}, {_DECIDED}) ON parked",
    "SELECT ON membership, partnership, staff",
)
"""A release decides commands as a worker does, in one transaction with the row of its operation."""


def upgrade() -> None:
    """Add the columns, and an index of what is open and in no queue: what was decided stays, and grows forever."""
    op.add_column("parked", sa.Column("operation_id", sa.Uuid))
    op.add_column("parked", sa.Column("ended_at", sa.DateTime(timezone=True)))
    op.create_index(
        "parked_loose_idx",
        "parked",
        ["id"],
        postgresql_where=sa.text("state = 'open' AND (command_id IS NULL OR org_id IS NULL)"),
    )
    op.execute(f"GRANT SELECT ({_DECIDED}) ON parked TO orgs_reader")
    for rights in _GRANTS:
        op.execute(f"GRANT {rights} TO orgs_operate")


def downgrade() -> None:
    """Take rights, index and columns back."""
    for rights in _GRANTS:
        op.execute(f"REVOKE {rights} FROM orgs_operate")
    op.execute(f"REVOKE SELECT ({_DECIDED}) ON parked FROM orgs_reader")  # noqa: S608 - a constant
    op.drop_index("parked_loose_idx", "parked")
    op.drop_column("parked", "ended_at")
    op.drop_column("parked", "operation_id")
