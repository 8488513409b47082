-- scratch/make
--
-- Makes the tables. A rehearsal, first. Locks nothing that exists.

DO $$
BEGIN
    SET temp_buffers = '64MB';
    CREATE TEMPORARY TABLE organization (LIKE organization INCLUDING ALL) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE journal (LIKE journal INCLUDING ALL) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE parked (
        LIKE parked INCLUDING ALL EXCLUDING INDEXES,
        CONSTRAINT parked_coordinates_key UNIQUE (topic, partition, "offset", broker_time)
    ) ON COMMIT DELETE ROWS;
    CREATE TEMPORARY TABLE journal_head (LIKE journal_head INCLUDING ALL);
    INSERT INTO journal_head (id, position) VALUES (1, 0);
    CREATE TEMPORARY TABLE diverged (id uuid PRIMARY KEY, name_key text COLLATE "C", organization text);
    CREATE INDEX ON diverged (name_key);
    CREATE TEMPORARY TABLE waiting (
        command_id uuid PRIMARY KEY, org_id uuid NOT NULL, request_digest bytea NOT NULL, partition integer NOT NULL,
        "offset" bigint NOT NULL
    );
    CREATE INDEX ON waiting (org_id);
    CREATE TEMPORARY TABLE given_up (name_key text COLLATE "C", position bigint, org_id uuid);
    CREATE INDEX ON given_up (name_key, position);
END $$;
