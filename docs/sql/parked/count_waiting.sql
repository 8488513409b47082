-- parked/count_waiting
--
-- Counts the commands that wait in each organization, up to a bound. The worker, in a batch that touches an
-- organization with parked commands. No lock. parked_org_id_idx.
--
-- Parameters: $1 asked_org_id, $2 rows_max

SELECT asked.org_id, count(*) AS count_1
FROM unnest($1::UUID[]) AS asked(org_id) JOIN LATERAL (SELECT parked.id AS id
FROM parked
WHERE parked.org_id = asked.org_id AND parked.state = 'open' AND parked.command_id IS NOT NULL
LIMIT $2::BIGINT) AS waiting ON true GROUP BY asked.org_id;
