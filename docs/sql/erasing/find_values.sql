-- erasing/find_values
--
-- Reads what they were called and where they were, ever. A step of `orgs erase` or `orgs purge`. No lock.
-- journal_org_id_version_key.
--
-- Parameters: $1 ids, $2 chars_min

SELECT DISTINCT said.value FROM journal, LATERAL (
SELECT unnest(ARRAY[
state->>'name', state->>'domain', state->'primary_address'->>'line1', state->'primary_address'->>'line2'
]) AS value FROM (VALUES (journal.before::json), (journal.after::json)) AS states(state)
) AS said
WHERE journal.org_id = any(CAST($1::UUID[] AS uuid[])) AND journal.event_type IS NOT NULL
AND length(said.value) >= $2::INTEGER;
