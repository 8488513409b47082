-- staged/make
--
-- Makes the tables that topics are read into. A rebuild or a recovery, first.

DO $$
BEGIN
    DROP TABLE IF EXISTS restoring_command, restoring_parked, restoring_lost, restoring_changed, restoring_organization;
    CREATE TABLE restoring_command (
        command_id uuid NOT NULL, org_id uuid, command_type text NOT NULL, actor text, request_digest bytea NOT NULL,
        partition integer NOT NULL, "offset" bigint NOT NULL, time_ms bigint NOT NULL, traceparent text
    );
    CREATE INDEX ON restoring_command (command_id);
    CREATE TABLE restoring_lost (
        LIKE restoring_command, PRIMARY KEY (command_id)
    );
    CREATE TABLE restoring_parked (command_id uuid PRIMARY KEY);
    CREATE TABLE restoring_changed (org_id uuid PRIMARY KEY, version bigint NOT NULL, erased boolean NOT NULL);
    CREATE TABLE restoring_organization (LIKE organization, PRIMARY KEY (id));
END $$;
