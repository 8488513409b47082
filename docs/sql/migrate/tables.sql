-- migrate/tables
--
-- Whether the tables of versions are there. Every process, when it starts. No lock.

SELECT to_regclass('schema_version') IS NOT NULL, to_regclass('alembic_version') IS NOT NULL;
