-- staged/find_unknown
--
-- Finds deleted organizations of which nothing else is known. A rebuild or a recovery, for each step of
-- state.
--
-- Parameters: $1 ids

SELECT asked.id FROM unnest($1::UUID[]) AS asked (id) WHERE NOT EXISTS (SELECT
    FROM restoring_organization AS staged WHERE staged.id = asked.id) AND NOT EXISTS (SELECT
    FROM organization AS stored WHERE stored.id = asked.id);
