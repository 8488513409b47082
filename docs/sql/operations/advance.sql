-- operations/advance
--
-- Notes how far a run is, and renews its lease. Whoever runs it, in the transaction of each step. Locks the
-- row until the commit. operation_pkey.
--
-- Parameters: $1 new_progress, $2 new_done, $3 new_counts, $4 lease_s, $5 operation_id, $6 lease_runner

UPDATE operation SET progress=$1::JSONB, done=$2::BIGINT, counts=$3::JSONB,
    leased_until=(clock_timestamp() + $4::INTERVAL) WHERE operation.id = $5::UUID
    AND operation.state = 'running' AND operation.runner = $6::VARCHAR RETURNING operation.asked_for,
    operation.rate_per_second_max;
