"""The leader epoch up to which a reference topic was read tells a log that lost its end and was filled again.

Revision ID: 0019
Revises: 0018
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0019"
down_revision: str | None = "0018"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Add the column, null for what is there: it is believed as it is, once more."""
    op.add_column("reference_progress", sa.Column("leader_epoch", sa.Integer()))


def downgrade() -> None:
    """Take it back."""
    op.drop_column("reference_progress", "leader_epoch")
