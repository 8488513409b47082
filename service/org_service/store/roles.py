"""The group roles of the service, and what a migration needs before the first table exists.

Roles belong to the whole cluster, databases come and go: a role is made where it is missing and never dropped.
Nobody logs in as one; a process logs in as whoever it is and assumes its role (`settings.database.assume_role`).
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from org_service.errors import DeniedError

INSUFFICIENT_PRIVILEGE: Final = "42501"

# Two migrations of two databases may get here at once (an advisory lock reaches no further than its database): the
# slower one waits for the other's transaction and then finds the role there. GRANT of a role locks it by itself.
# Needs Postgres 16, the first that tells SET from the other rights of a member.
PREPARE: Final = text("""
DO $$
DECLARE
    needed text;
BEGIN
    FOREACH needed IN ARRAY ARRAY['orgs_owner', 'orgs_worker', 'orgs_relay', 'orgs_edge', 'orgs_reader',
        'orgs_operate'] LOOP
        IF to_regrole(needed) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', needed);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        IF NOT has_schema_privilege(needed, current_schema(), 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), needed);
        END IF;
    END LOOP;
    IF NOT pg_has_role('orgs_owner', 'SET') THEN
        GRANT orgs_owner TO CURRENT_USER WITH SET TRUE;
    END IF;
    IF NOT has_schema_privilege('orgs_owner', current_schema(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON SCHEMA %I TO orgs_owner', current_schema());
    END IF;
    -- GRANT warns, rather than fails, where the login may not grant.
    IF NOT pg_has_role('orgs_owner', 'SET') OR NOT has_schema_privilege('orgs_owner', current_schema(), 'CREATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'no right to act as orgs_owner, or it has none in the schema';
    END IF;
END $$
""")


async def prepare(conn: AsyncConnection) -> None:
    """Make the group roles where they are missing, and let the owner role make tables in this database.

    One transaction, committed here. May be run again and by several at once. A login without CREATEROLE will do
    where the roles and rights are there already.

    Raises:
        DeniedError: The login may not do this. Nothing was changed.
    """
    try:
        await conn.execute(PREPARE)
        await conn.commit()
    except DBAPIError as error:
        await conn.rollback()
        if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
            raise
        raise DeniedError(
            f"The migrating login may not set up the roles ({error.orig}). Give it CREATEROLE and ownership of "
            "the database, or create orgs_owner, orgs_worker, orgs_relay, orgs_edge, orgs_reader and orgs_operate "
            "beforehand, grant it orgs_owner, and grant orgs_owner CREATE on the schema."
        ) from error
