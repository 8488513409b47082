-- recorded/find_waiting
--
-- Finds the parked commands of organizations. A rehearsal, for each batch. No lock. parked_org_id_idx.
--
-- Parameters: $1 ids

SELECT parked.partition, parked."offset", parked.broker_time, parked.org_id, parked.command_id,
    parked.request_digest, parked.reason, parked.state, parked.actor, parked.authenticated_by
FROM parked
WHERE parked.org_id = any($1::UUID[]) AND parked.state = 'open' AND parked.command_id IS NOT NULL
    ORDER BY parked.id;
