-- scratch/find_diverged
--
-- Finds organizations that went another way. A rehearsal, for each batch once something differed. Temporary
-- tables only.
--
-- Parameters: $1 ids, $2 keys

SELECT id, organization FROM diverged WHERE id = ANY($1::UUID[]) OR name_key = ANY($2::TEXT[]);
