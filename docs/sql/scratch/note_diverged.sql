-- scratch/note_diverged
--
-- Keeps organizations that went another way. A rehearsal, for each batch once something differed. Temporary
-- tables only.
--
-- Parameters: $1 ids, $2 keys, $3 organizations

INSERT INTO diverged SELECT * FROM unnest($1::UUID[], $2::TEXT[], $3::TEXT[]) ON CONFLICT (id) DO UPDATE
    SET name_key = excluded.name_key, organization = excluded.organization;
