"""Reference data, commands answered with 202, and indexes for lists.

Revision ID: 0002
Revises: 0001
"""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: None = None
depends_on: None = None

_ROLES: Final = "role IN ('admin', 'support', 'cloud_rep', 'user', 'restricted_user')"
_TABLES: Final = ("membership", "partnership", "staff", "reference_progress", "accepted_command")


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def _create_reference() -> None:
    op.create_table(
        "membership",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("org_id", sa.Uuid, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        _moment("joined_at"),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "org_id", name="membership_pkey"),
        sa.CheckConstraint(_ROLES, name="membership_role_check"),
    )
    op.create_table(
        "partnership",
        sa.Column("partner_org_id", sa.Uuid, nullable=False),
        sa.Column("org_id", sa.Uuid, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("partner_org_id", "org_id", name="partnership_pkey"),
        sa.CheckConstraint(_ROLES, name="partnership_role_check"),
    )
    op.create_index("partnership_org_id_idx", "partnership", ["org_id"])
    op.create_table(
        "staff",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="staff_pkey"),
    )
    op.create_table(
        "reference_progress",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("topic_id", sa.Uuid, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", name="reference_progress_pkey"),
    )


def _create_accepted_command() -> None:
    op.create_table(
        "accepted_command",
        sa.Column("command_id", sa.Uuid, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("org_id", sa.Uuid, nullable=False),
        _moment("accepted_at"),
        sa.PrimaryKeyConstraint("command_id", name="accepted_command_pkey"),
    )
    op.create_index("accepted_command_accepted_at_idx", "accepted_command", ["accepted_at"])


def _sort_by_bytes(collation: str | None) -> None:
    for column in ("name_key", "domain"):
        op.alter_column("organization", column, type_=sa.Text(collation=collation), existing_nullable=True)


def _index_active(name: str, columns: list[str], *, included: list[str]) -> None:
    active = sa.text("deleted_at IS NULL AND deactivated_at IS NULL")
    op.create_index(name, "organization", columns, postgresql_include=included, postgresql_where=active)


_GRANTS: Final = (
    "GRANT SELECT ON alembic_version TO orgs_edge",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON membership, partnership, staff TO orgs_worker",
    "GRANT SELECT, INSERT, UPDATE ON reference_progress TO orgs_worker",
    "GRANT SELECT ON organization, journal, journal_head, parked, membership, partnership, staff TO orgs_edge",
    "GRANT SELECT, INSERT, DELETE ON accepted_command TO orgs_edge",
    "GRANT SELECT ON membership, partnership, staff, reference_progress, accepted_command TO orgs_reader",
)


def upgrade() -> None:
    """Make the tables and indexes, and grant the rights. Sorting by bytes builds the index of names anew."""
    _create_reference()
    _create_accepted_command()
    _sort_by_bytes("C")
    _index_active("organization_created_at_idx", ["created_at", "id"], included=["name_key", "domain"])
    _index_active("organization_domain_idx", ["domain"], included=["name_key", "created_at", "id"])
    for grant in _GRANTS:
        op.execute(grant)


def downgrade() -> None:
    """Drop what `upgrade` made, and with it all reference data: the topics have them."""
    op.drop_index("organization_domain_idx", "organization")
    op.drop_index("organization_created_at_idx", "organization")
    _sort_by_bytes("default")
    for table in reversed(_TABLES):
        op.drop_table(table)
    op.execute("REVOKE SELECT ON organization, journal, journal_head, parked, alembic_version FROM orgs_edge")
