"""The broker's time among the coordinates of a parked record.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: None = None
depends_on: None = None

_NAME = "parked_coordinates_key"
_COORDINATES = ("topic", "partition", "offset")


def _make_unique(*columns: str) -> None:
    op.drop_constraint(_NAME, "parked", type_="unique")
    op.create_unique_constraint(_NAME, "parked", columns)


def upgrade() -> None:
    """Tell records apart that had one offset after the other: in a topic created anew, or one that lost its end."""
    _make_unique(*_COORDINATES, "broker_time")


def downgrade() -> None:
    """Take it back. Fails where two such records are parked."""
    _make_unique(*_COORDINATES)
