"""When the reference data were last known to be complete; and records on a partition that isn't their key's.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

_CHECK = "parked_reason_check"
_REASONS = ("unreadable", "handler_raised", "data_refused", "queued_behind")


def _allow(*reasons: str) -> None:
    op.drop_constraint(_CHECK, "parked", type_="check")
    op.create_check_constraint(_CHECK, "parked", "reason IN ({})".format(", ".join(f"'{each}'" for each in reasons)))


def upgrade() -> None:
    """Add the column, null for what is there: nobody knows, so the first worker reads these partitions once more."""
    op.add_column("reference_progress", sa.Column("confirmed_at", sa.DateTime(timezone=True)))
    _allow(*_REASONS, "wrong_partition")


def downgrade() -> None:
    """Take it back. Fails where such a record is parked."""
    _allow(*_REASONS)
    op.drop_column("reference_progress", "confirmed_at")
