"""What is parked is grouped by the first command of each queue, from an index alone; a plan keeps its notes,
and a form of the operators' page may have made it.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

_QUEUED = "state = 'open' AND command_id IS NOT NULL"
_ACTS = ("signed_in", "signed_out", "approved", "run", "paused", "cancelled", "revealed")


def upgrade() -> None:
    """Give the index of queues the order of each; whatever used it still does. What was planned before has no notes."""
    _index_queues("org_id", "id")
    op.add_column("operation", sa.Column("notes", JSONB, nullable=False, server_default=sa.text("'[]'")))
    _allow_acts(*_ACTS, "planned")


def downgrade() -> None:
    """Leave the order to the table again, and forget the notes, and who planned something on the page."""
    op.execute("DELETE FROM console_act WHERE act = 'planned'")
    _allow_acts(*_ACTS)
    op.drop_column("operation", "notes")
    _index_queues("org_id")


def _index_queues(*columns: str) -> None:
    op.drop_index("parked_org_id_idx", "parked")
    op.create_index("parked_org_id_idx", "parked", list(columns), postgresql_where=sa.text(_QUEUED))


def _allow_acts(*acts: str) -> None:
    op.drop_constraint("console_act_act_check", "console_act")
    op.create_check_constraint("console_act_act_check", "console_act", f"act IN ({', '.join(map(repr, acts))})")
