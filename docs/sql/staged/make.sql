-- staged/make
--
-- Makes the tables that topics are read into. A rebuild or a recovery, first.

DO $$
BEGIN
    DROP TABLE IF EXISTS restoring_event, restoring_result, restoring_command, restoring_parked, restoring_lost,
        restoring_organization;
    CREATE TABLE restoring_event (
        position bigint NOT NULL, command_id uuid NOT NULL, org_id uuid NOT NULL, version bigint NOT NULL,
        event_type text NOT NULL, actor text, changed text NOT NULL, before text, after text, traceparent text,
        recorded_at timestamptz NOT NULL
    );
    CREATE INDEX ON restoring_event (position);
    CREATE INDEX ON restoring_event (command_id);
    CREATE TABLE restoring_result (
        position bigint NOT NULL, command_id uuid NOT NULL, org_id uuid, version bigint, outcome text NOT NULL,
        code smallint NOT NULL, organization text, problem text, traceparent text, recorded_at timestamptz NOT NULL
    );
    CREATE INDEX ON restoring_result (position);
    CREATE INDEX ON restoring_result (command_id);
    CREATE TABLE restoring_command (
        command_id uuid NOT NULL, org_id uuid, command_type text NOT NULL, actor text, request_digest bytea NOT NULL,
        partition integer NOT NULL, "offset" bigint NOT NULL, time_ms bigint NOT NULL, traceparent text
    );
    CREATE INDEX ON restoring_command (command_id);
    CREATE TABLE restoring_lost (
        LIKE restoring_command, PRIMARY KEY (command_id)
    );
    CREATE TABLE restoring_parked (command_id uuid PRIMARY KEY);
    CREATE TABLE restoring_organization (LIKE organization, PRIMARY KEY (id));
END $$;
