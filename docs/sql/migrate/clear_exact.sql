-- migrate/clear_exact
--
-- Takes the version back that the first releases look at. `orgs migrate`.

DELETE FROM alembic_version;
