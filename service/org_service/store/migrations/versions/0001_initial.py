"""The tables of the service, and what each role may do with them.

`tables.py` says what they are for; a test compares the two. The roles themselves belong to the cluster and are there
already (`roles.py`).
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision: str = "0001"
down_revision: str | None = None


def _moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _create_organization() -> None:
    op.create_table(
        "organization",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_key", sa.Text),
        sa.Column("domain", sa.Text),
        sa.Column("primary_address", JSONB(none_as_null=True)),
        _moment("created_at"),
        _moment("updated_at"),
        _moment("deactivated_at", nullable=True),
        _moment("deleted_at", nullable=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="organization_pkey"),
        sa.UniqueConstraint("name_key", name="organization_name_key_key", deferrable=True, initially="DEFERRED"),
        sa.CheckConstraint("version >= 1", name="organization_version_check"),
        sa.CheckConstraint("(name_key IS NULL) = (deleted_at IS NOT NULL)", name="organization_name_key_check"),
        postgresql_with={"fillfactor": 70},
    )


def _create_journal() -> None:
    op.create_table(
        "journal",
        sa.Column("position", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("command_id", sa.Uuid, nullable=False),
        sa.Column("org_id", sa.Uuid),
        sa.Column("version", sa.BigInteger),
        sa.Column("command_type", sa.Text, nullable=False),
        sa.Column("event_type", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("code", sa.SmallInteger, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("request_digest", sa.LargeBinary, nullable=False),
        sa.Column("command_partition", sa.Integer, nullable=False),
        sa.Column("command_offset", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.Text),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("problem", sa.Text),
        sa.Column("traceparent", sa.Text),
        _moment("recorded_at"),
        sa.PrimaryKeyConstraint("position", name="journal_pkey"),
        sa.UniqueConstraint("command_id", name="journal_command_id_key"),
        sa.CheckConstraint("outcome IN ('applied', 'unchanged', 'rejected')", name="journal_outcome_check"),
        sa.CheckConstraint("(event_type IS NOT NULL) = (outcome = 'applied')", name="journal_event_type_check"),
    )
    op.create_index(
        "journal_org_id_version_key",
        "journal",
        ["org_id", "version"],
        unique=True,
        postgresql_where=sa.text("event_type IS NOT NULL"),
    )


def _create_journal_head() -> None:
    op.create_table(
        "journal_head",
        sa.Column("id", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="journal_head_pkey"),
        sa.CheckConstraint("id = 1", name="journal_head_id_check"),
    )
    op.execute("INSERT INTO journal_head (id, position) VALUES (1, 0)")


def _create_parked() -> None:
    op.create_table(
        "parked",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        _moment("broker_time"),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("org_id", sa.Uuid),
        sa.Column("command_id", sa.Uuid),
        sa.Column("request_digest", sa.LargeBinary),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        _moment("recorded_at"),
        sa.PrimaryKeyConstraint("id", name="parked_pkey"),
        sa.UniqueConstraint("topic", "partition", "offset", name="parked_coordinates_key"),
        sa.CheckConstraint("state IN ('open', 'released', 'discarded')", name="parked_state_check"),
        sa.CheckConstraint(
            "reason IN ('unreadable', 'handler_raised', 'data_refused', 'queued_behind')", name="parked_reason_check"
        ),
    )
    op.create_index(
        "parked_org_id_idx",
        "parked",
        ["org_id"],
        postgresql_where=sa.text("state = 'open' AND command_id IS NOT NULL"),
    )
    op.create_index(
        "parked_command_id_idx", "parked", ["command_id"], postgresql_where=sa.text("command_id IS NOT NULL")
    )


# A parked record is evidence: what came from Kafka can't be changed, only what we think of it.
_GRANTS = (
    "GRANT SELECT ON alembic_version TO orgs_worker, orgs_relay, orgs_reader",
    "GRANT SELECT, INSERT, UPDATE ON organization TO orgs_worker",
    "GRANT SELECT, INSERT ON journal TO orgs_worker",
    "GRANT SELECT, UPDATE (position) ON journal_head TO orgs_worker",
    "GRANT SELECT, INSERT, UPDATE (reason, detail, attempts, state) ON parked TO orgs_worker",
    "GRANT SELECT ON journal, journal_head TO orgs_relay",
    "GRANT SELECT ON organization, journal, journal_head, parked TO orgs_reader",
)


def upgrade() -> None:
    """Make the tables and grant the rights."""
    _create_organization()
    _create_journal()
    _create_journal_head()
    _create_parked()
    for grant in _GRANTS:
        op.execute(grant)


def downgrade() -> None:
    """Drop the tables, and with them the rights; the roles may serve other databases."""
    for table in ("parked", "journal_head", "journal", "organization"):
        op.drop_table(table)
    op.execute("REVOKE SELECT ON alembic_version FROM orgs_worker, orgs_relay, orgs_reader")
