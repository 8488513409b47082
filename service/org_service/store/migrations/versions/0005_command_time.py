"""The broker's time among the coordinates of a journaled command.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Add it, null in the rows that are there: nothing is rewritten, and a worker without it leaves it out."""
    op.add_column("journal", sa.Column("command_time_ms", sa.BigInteger))


def downgrade() -> None:
    """Take it back; commands are told apart by partition and offset again."""
    op.drop_column("journal", "command_time_ms")
