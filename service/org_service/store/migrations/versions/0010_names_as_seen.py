"""Names that look alike have one form: what is shown as nothing is left out of it.

Where two organizations have such names already, the older one (or one whose name has nothing of the kind) takes the
form, and the other keeps the form it has until it is renamed: nobody's name is changed or taken away here.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: None = None
depends_on: None = None
oldest_code: str = "0004"

# As `org_events.organization.IGNORABLE` was when this was written.
_IGNORABLE = (
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e001f\U000e0080-\U000e0fff]"
)


def upgrade() -> None:
    """Write the form again where it changes; the table is read once."""
    op.execute(
        f"""
        WITH forms AS (
            SELECT id, created_at, btrim(normalize(regexp_replace(name_key, '{_IGNORABLE}', '', 'g'), NFKC)) AS form
            FROM organization WHERE name_key ~ '{_IGNORABLE}'
        ), first AS (
            SELECT DISTINCT ON (form) id, form FROM forms WHERE form <> '' ORDER BY form, created_at, id
        )
        UPDATE organization SET name_key = form FROM first
        WHERE organization.id = first.id
            AND NOT EXISTS (SELECT FROM organization AS other WHERE other.name_key = first.form)
        """  # noqa: S608 - constants
    )


def downgrade() -> None:
    """Leave the forms as they are: programs before this compare them by the same column."""
