-- operations/take
--
-- Takes the lease on an operation, to begin or to continue it. Whoever runs it, once. Locks the row; fails
-- where another one on the same resource is under way. operation_pkey and operation_resource_key.
--
-- Parameters: $1 new_reason, $2 asked_for, $3 lease_runner, $4 lease_s, $5 error, $6 operation_id

UPDATE operation SET reason=coalesce($1::VARCHAR, operation.reason), state='running', asked_for=$2::VARCHAR,
    runner=$3::VARCHAR, leased_until=(clock_timestamp() + $4::INTERVAL), error=$5::VARCHAR,
    started_at=coalesce(operation.started_at, clock_timestamp()) WHERE operation.id = $6::UUID
    AND (operation.state = 'planned' AND operation.expires_at > clock_timestamp()
    OR operation.state = 'paused' OR operation.state = 'running'
    AND operation.leased_until <= clock_timestamp()) RETURNING operation.id;
