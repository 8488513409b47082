-- operations/release
--
-- Leaves a run to any other process. A process of the role `operate` that ends. Locks the row.
-- operation_pkey.
--
-- Parameters: $1 operation_id, $2 lease_runner

UPDATE operation SET leased_until=clock_timestamp() WHERE operation.id = $1::UUID
    AND operation.state = 'running' AND operation.runner = $2::VARCHAR RETURNING operation.id;
