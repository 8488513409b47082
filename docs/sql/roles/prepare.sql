-- roles/prepare
--
-- Makes the group roles and their rights in the schema where they are missing. `orgs migrate`.

DO $$
DECLARE
    needed text;
BEGIN
    FOREACH needed IN ARRAY ARRAY['orgs_owner', 'orgs_worker', 'orgs_relay', 'orgs_edge', 'orgs_reader',
        'orgs_operate'] LOOP
        IF to_regrole(needed) IS NULL THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', needed);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
        IF NOT has_schema_privilege(needed, current_schema(), 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), needed);
        END IF;
    END LOOP;
    IF NOT pg_has_role('orgs_owner', 'SET') THEN
        GRANT orgs_owner TO CURRENT_USER WITH SET TRUE;
    END IF;
    IF NOT has_schema_privilege('orgs_owner', current_schema(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON SCHEMA %I TO orgs_owner', current_schema());
    END IF;
    -- GRANT warns, rather than fails, where the login may not grant.
    IF NOT pg_has_role('orgs_owner', 'SET') OR NOT has_schema_privilege('orgs_owner', current_schema(), 'CREATE') THEN
        RAISE insufficient_privilege USING MESSAGE = 'no right to act as orgs_owner, or it has none in the schema';
    END IF;
END $$;
