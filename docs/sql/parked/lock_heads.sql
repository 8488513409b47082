-- parked/lock_heads
--
-- Locks the first open command of queues. The worker, in a batch with commands of organizations that do not
-- exist yet and have parked commands. Row locks (FOR SHARE) until the commit: waits for a release of the
-- queue, which would make the organization. parked_org_id_idx.
--
-- Parameters: $1 asked_org_id, $2 param_1 = 1

SELECT asked.org_id
FROM unnest($1::UUID[]) AS asked(org_id) JOIN LATERAL (SELECT parked.id AS id
FROM parked
WHERE parked.org_id = asked.org_id AND parked.state = 'open' AND parked.command_id IS NOT NULL
    ORDER BY parked.id
LIMIT $2::INTEGER FOR SHARE) AS first ON true;
