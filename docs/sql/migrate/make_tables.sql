-- migrate/make_tables
--
-- Makes the tables of versions where they are missing. `orgs migrate`.

DO $$
BEGIN
    IF to_regclass('alembic_version') IS NULL THEN
        CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY);
    END IF;
    IF to_regclass('schema_version') IS NULL THEN
        CREATE TABLE schema_version (
            version_num varchar(32) CONSTRAINT schema_version_pkc PRIMARY KEY, oldest_code varchar(32)
        );
        GRANT SELECT ON schema_version TO orgs_worker, orgs_relay, orgs_edge, orgs_reader;
        INSERT INTO schema_version SELECT version_num, version_num FROM alembic_version;
    END IF;
END $$;
