-- parked_queues/select
--
-- As `list`, with what they hold. An operator's command, seldom, and in each step of a discard. No lock. The
-- same indexes.
--
-- Parameters: $1 state, $2 loose, $3 through_id, $4 ids, $5 org_ids, $6 command_ids, $7 topic, $8 reason, $9
--   cause, $10 exhausted, $11 from_time, $12 to_time, $13 after_id, $14 limit

SELECT parked.id, parked.topic, parked.partition, parked."offset", parked.broker_time, parked.key,
    parked.value, parked.headers, parked.org_id, parked.command_id, parked.request_digest, parked.reason,
    parked.detail, parked.attempts, parked.state, parked.actor, parked.authenticated_by, parked.value_bytes,
    parked.recorded_at, parked.operation_id, parked.ended_at
FROM parked
WHERE ($1::VARCHAR IS NULL OR parked.state = $1::VARCHAR) AND ($2::BOOLEAN IS NULL
    OR (parked.command_id IS NULL OR parked.org_id IS NULL) = $2::BOOLEAN) AND ($3::BIGINT IS NULL
    OR parked.id <= $3::BIGINT) AND ($4::BIGINT[] IS NULL OR parked.id = any($4::BIGINT[]))
    AND ($5::UUID[] IS NULL OR parked.org_id = any($5::UUID[])) AND ($6::UUID[] IS NULL
    OR parked.command_id = any($6::UUID[])) AND ($7::VARCHAR IS NULL OR parked.topic = $7::VARCHAR)
    AND ($8::VARCHAR IS NULL OR parked.reason = $8::VARCHAR) AND ($9::VARCHAR IS NULL
    OR split_part(parked.detail, '; ', 1) = $9::VARCHAR) AND ($10::BOOLEAN IS NULL
    OR (parked.attempts > 3) = $10::BOOLEAN) AND ($11::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at >= $11::TIMESTAMP WITH TIME ZONE) AND ($12::TIMESTAMP WITH TIME ZONE IS NULL
    OR parked.recorded_at < $12::TIMESTAMP WITH TIME ZONE) AND parked.id > $13::BIGINT ORDER BY parked.id
LIMIT $14::INTEGER;
