-- parked_queues/select
--
-- Reads the next open records of a selection; null asks for all. An operator's command, seldom, for each step
-- of a discard. No lock. parked_pkey, or parked_org_id_idx.
--
-- Parameters: $1 through_id, $2 ids, $3 org_ids, $4 command_ids, $5 topic, $6 reason, $7 cause, $8 exhausted,
--   $9 from_time, $10 to_time, $11 after_id, $12 limit

SELECT parked.id, parked.topic, parked.partition, parked."offset", parked.broker_time, parked.key,
    parked.value, parked.headers, parked.org_id, parked.command_id, parked.request_digest, parked.reason,
    parked.detail, parked.attempts, parked.state, parked.actor, parked.authenticated_by, parked.value_bytes,
    parked.recorded_at
FROM parked
WHERE parked.state = 'open' AND parked.id <= $1::BIGINT AND ($2::BIGINT[] IS NULL
    OR parked.id = any($2::BIGINT[])) AND ($3::UUID[] IS NULL OR parked.org_id = any($3::UUID[]))
    AND ($4::UUID[] IS NULL OR parked.command_id = any($4::UUID[])) AND ($5::VARCHAR IS NULL
    OR parked.topic = $5::VARCHAR) AND ($6::VARCHAR IS NULL OR parked.reason = $6::VARCHAR)
    AND ($7::VARCHAR IS NULL OR split_part(parked.detail, '; ', 1) = $7::VARCHAR) AND ($8::BOOLEAN IS NULL
    OR (parked.attempts > 3) = $8::BOOLEAN) AND ($9::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at >= $9::TIMESTAMP WITH TIME ZONE) AND ($10::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at < $10::TIMESTAMP WITH TIME ZONE) AND parked.id > $11::BIGINT ORDER BY parked.id
LIMIT $12::INTEGER;
