-- migrate/schema
--
-- Reads the version of the schema. Every process, when it starts. No lock. One row.

SELECT version_num, oldest_code FROM schema_version;
