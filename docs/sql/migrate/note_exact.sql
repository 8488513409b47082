-- migrate/note_exact
--
-- Notes the version that the first releases look at. `orgs migrate`.
--
-- Parameters: $1 exact

INSERT INTO alembic_version VALUES ($1);
