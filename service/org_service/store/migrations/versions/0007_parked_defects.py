"""An index of what waits because of a defect of ours.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Make it: few rows are in it, and those in no time, so that a health check may count them."""
    op.create_index(
        "parked_defect_idx",
        "parked",
        ["id"],
        postgresql_where=sa.text("state = 'open' AND reason = 'handler_raised'"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_index("parked_defect_idx", "parked")
