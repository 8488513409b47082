-- migrate/exact
--
-- Reads the version as the first releases kept it. Every process on such a schema. No lock. One row.

SELECT version_num, version_num FROM alembic_version;
