-- migrate/note_oldest
--
-- Notes the oldest program that runs on the schema. `orgs migrate`, for each migration.
--
-- Parameters: $1 oldest

UPDATE schema_version SET oldest_code = $1;
