"""Operators read the reference data: commands are judged by them in a rehearsal too.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Grant it."""
    op.execute("GRANT SELECT ON membership, partnership, staff TO orgs_operate")


def downgrade() -> None:
    """Revoke it."""
    op.execute("REVOKE SELECT ON membership, partnership, staff FROM orgs_operate")
