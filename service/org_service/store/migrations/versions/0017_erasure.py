"""Organizations can be erased: their rows stay, empty (decision 0043).

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"


def upgrade() -> None:
    """Let an organization be empty only where it is deleted, so that no program of before can restore an empty one.

    The index finds the rows of commands that changed nothing; those of changes have one already. A plan counts accepted
    commands, too.
    """
    op.create_check_constraint(
        "organization_erased_check",
        "organization",
        "name <> '' OR (deleted_at IS NOT NULL AND domain IS NULL AND primary_address IS NULL)",
    )
    op.create_index(
        "journal_org_id_unchanged_idx",
        "journal",
        ["org_id"],
        postgresql_where=sa.text("event_type IS NULL AND org_id IS NOT NULL"),
    )
    op.execute("GRANT SELECT ON accepted_command TO orgs_operate")


def downgrade() -> None:
    """Drop both; what was erased stays erased."""
    op.execute("REVOKE SELECT ON accepted_command FROM orgs_operate")
    op.drop_index("journal_org_id_unchanged_idx", "journal")
    op.drop_constraint("organization_erased_check", "organization")
