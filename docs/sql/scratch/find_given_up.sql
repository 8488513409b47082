-- scratch/find_given_up
--
-- Finds the first who gave up a name at a position or later. A rehearsal, for batches in which a name was not
-- taken as it was asked for. Temporary tables only.
--
-- Parameters: $1 keys, $2 positions

SELECT asked.name_key, asked.position, first.org_id FROM unnest($1::TEXT[], $2::BIGINT[]) AS asked (name_key,
    position) CROSS JOIN LATERAL (SELECT given_up.org_id FROM given_up
    WHERE given_up.name_key = asked.name_key AND given_up.position >= asked.position
    ORDER BY given_up.position LIMIT 1) AS first;
