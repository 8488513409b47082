"""The first command of each queue is read from an index alone: what is parked is grouped by these.

Revision ID: 0020
Revises: 0019
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

_QUEUED = "state = 'open' AND command_id IS NOT NULL"


def upgrade() -> None:
    """Give the index of queues the order of each; whatever used it still does."""
    _index_queues("org_id", "id")


def downgrade() -> None:
    """Leave the order to the table again."""
    _index_queues("org_id")


def _index_queues(*columns: str) -> None:
    op.drop_index("parked_org_id_idx", "parked")
    op.create_index("parked_org_id_idx", "parked", list(columns), postgresql_where=sa.text(_QUEUED))
