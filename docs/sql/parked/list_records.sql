-- parked/list_records
--
-- Lists parked records without their contents; null asks for nothing. An operator's command, seldom. No lock.
-- parked_pkey in order of id, or parked_command_id_idx; for the records of one organization, or of a state
-- that few are in, it reads the whole table.
--
-- Parameters: $1 after_id, $2 state, $3 parked_id, $4 org_id, $5 command_id, $6 limit

SELECT parked.id, parked.topic, parked.partition, parked."offset", parked.broker_time, parked.org_id,
    parked.command_id, parked.reason, parked.detail, parked.attempts, parked.state, parked.actor,
    parked.authenticated_by, parked.value_bytes, parked.value_sha256, parked.recorded_at
FROM parked
WHERE parked.id > $1::BIGINT AND ($2::VARCHAR IS NULL OR parked.state = $2::VARCHAR) AND ($3::BIGINT IS NULL
    OR parked.id = $3::BIGINT) AND ($4::UUID IS NULL OR parked.org_id = $4::UUID) AND ($5::UUID IS NULL
    OR parked.command_id = $5::UUID) ORDER BY parked.id
LIMIT $6::INTEGER;
