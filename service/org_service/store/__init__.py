"""Postgres: tables, statements, migrations. The only importer of SQLAlchemy, SQLModel and asyncpg."""
