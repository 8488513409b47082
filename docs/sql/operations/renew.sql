-- operations/renew
--
-- Renews the lease, and reads what others ask of the run. Whoever runs it, twice a second. Locks the row.
-- operation_pkey.
--
-- Parameters: $1 lease_s, $2 operation_id, $3 lease_runner

UPDATE operation SET leased_until=(clock_timestamp() + $1::INTERVAL) WHERE operation.id = $2::UUID
    AND operation.state = 'running' AND operation.runner = $3::VARCHAR RETURNING operation.asked_for,
    operation.rate_per_second_max;
