"""Alembic's entry: runs migrations on the connection that `org_service.store.migrate` hands over.

One transaction a migration, so that one may step out of it (`op.get_context().autocommit_block()`) to build an index
concurrently.
"""

from alembic import context
from sqlmodel import SQLModel

from org_service.store import tables

assert tables.OrganizationRow.metadata is SQLModel.metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    version_table=context.config.attributes["version_table"],
    transaction_per_migration=True,
    on_version_apply=context.config.attributes["on_version_apply"],
)
with context.begin_transaction():
    context.run_migrations()
