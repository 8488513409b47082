"""How long a parked value was of which only the beginning is kept, and its digest: to list, count and know again.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Add the columns, null for whatever is kept whole, and let readers see them."""
    op.add_column("parked", sa.Column("value_bytes", sa.Integer))
    op.add_column("parked", sa.Column("value_sha256", sa.Text))
    op.create_check_constraint("parked_value_cut_check", "parked", "(value_bytes IS NULL) = (value_sha256 IS NULL)")
    op.execute("GRANT SELECT (value_bytes, value_sha256) ON parked TO orgs_reader")


def downgrade() -> None:
    """Take the columns back, and with them the rights."""
    op.drop_constraint("parked_value_cut_check", "parked")
    op.drop_column("parked", "value_sha256")
    op.drop_column("parked", "value_bytes")
