-- parked_queues/read_queues
--
-- Reads the open commands of organizations, each queue in order. An operator's command, seldom, for each step
-- of a release. No lock. parked_org_id_idx.
--
-- Parameters: $1 given_org_ids, $2 limit

SELECT parked.id, parked.topic, parked.partition, parked."offset", parked.broker_time, parked.key,
    parked.value, parked.headers, parked.org_id, parked.command_id, parked.request_digest, parked.reason,
    parked.detail, parked.attempts, parked.state, parked.actor, parked.authenticated_by, parked.value_bytes,
    parked.recorded_at, parked.operation_id, parked.ended_at
FROM parked
WHERE parked.state = 'open' AND parked.command_id IS NOT NULL AND parked.org_id IS NOT NULL
    AND parked.org_id = any($1::UUID[]) ORDER BY parked.org_id, parked.id
LIMIT $2::INTEGER;
