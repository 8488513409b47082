-- parked/park
--
-- Sets a record aside; one row for each run. The worker, only in batches with such records. Locks the new
-- row; waits for a rival with the same record. parked_coordinates_key.
--
-- Parameters: $1 topic, $2 partition, $3 offset, $4 broker_time, $5 key, $6 value, $7 headers, $8 org_id, $9
--   command_id, $10 request_digest, $11 reason, $12 detail, $13 attempts, $14 state, $15 recorded_at, $16
--   actor, $17 authenticated_by, $18 value_bytes, $19 value_sha256

INSERT INTO parked (topic, partition, "offset", broker_time, key, value, headers, org_id, command_id,
    request_digest, reason, detail, attempts, state, recorded_at, actor, authenticated_by, value_bytes,
    value_sha256) VALUES ($1::VARCHAR, $2::INTEGER, $3::BIGINT, $4::TIMESTAMP WITH TIME ZONE, $5::BYTEA,
    $6::BYTEA, $7::VARCHAR, $8::UUID, $9::UUID, $10::BYTEA, $11::VARCHAR, $12::VARCHAR, $13::INTEGER,
    $14::VARCHAR, $15::TIMESTAMP WITH TIME ZONE, $16::VARCHAR, $17::VARCHAR, $18::INTEGER, $19::VARCHAR)
    ON CONFLICT ON CONSTRAINT parked_coordinates_key DO NOTHING;
