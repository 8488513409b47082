-- parked_queues/list_queues
--
-- As `read_queues`, without what the records hold, for a plan. An operator's command, seldom. No lock.
-- parked_org_id_idx.
--
-- Parameters: $1 given_org_ids, $2 through_id

SELECT parked.id, parked.topic, parked.org_id, parked.command_id, parked.reason, parked.detail,
    parked.attempts, parked.value_bytes, parked.recorded_at
FROM parked
WHERE parked.state = 'open' AND parked.command_id IS NOT NULL AND parked.org_id IS NOT NULL
    AND parked.org_id = any($1::UUID[]) AND parked.id <= $2::BIGINT ORDER BY parked.org_id, parked.id;
