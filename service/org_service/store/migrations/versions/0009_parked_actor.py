"""Who was verified of a parked command; and no more of what is parked than each role needs.

Revision ID: 0009
Revises: 0008
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

_EDGE: Final = "command_id, org_id, request_digest, state, recorded_at"
_READER: Final = (
    'id, topic, partition, "offset", broker_time, org_id, command_id, request_digest, reason, detail, attempts, state, '
    "actor, authenticated_by, recorded_at"
)


def upgrade() -> None:
    """Add the columns, and grant columns instead of the table.

    Rolling: a worker of the release before goes on to park tokens, which no role but the worker's can read any more.
    """
    op.add_column("parked", sa.Column("actor", sa.Text))
    op.add_column("parked", sa.Column("authenticated_by", sa.Text))
    op.create_check_constraint("parked_authenticated_by_check", "parked", "authenticated_by IN ('token', 'publisher')")
    op.execute("REVOKE SELECT ON parked FROM orgs_edge, orgs_reader")
    op.execute(f"GRANT SELECT ({_EDGE}) ON parked TO orgs_edge")
    op.execute(f"GRANT SELECT ({_READER}) ON parked TO orgs_reader")


def downgrade() -> None:
    """Take the columns and the rights by column back."""
    op.execute(f"REVOKE SELECT ({_EDGE}) ON parked FROM orgs_edge")  # noqa: S608 - constants
    op.execute(f"REVOKE SELECT ({_READER}) ON parked FROM orgs_reader")  # noqa: S608 - constants
    op.execute("GRANT SELECT ON parked TO orgs_edge, orgs_reader")
    op.drop_constraint("parked_authenticated_by_check", "parked")
    op.drop_column("parked", "authenticated_by")
    op.drop_column("parked", "actor")
