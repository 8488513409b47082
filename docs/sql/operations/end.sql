-- operations/end
--
-- Ends or pauses a run. Whoever runs it, once. Locks the row. operation_pkey.
--
-- Parameters: $1 new_state, $2 asked_for, $3 leased_until, $4 new_error, $5 operation_id, $6 lease_runner

UPDATE operation SET state=$1::VARCHAR, asked_for=$2::VARCHAR, leased_until=$3::TIMESTAMP WITH TIME ZONE,
    error=$4::VARCHAR, ended_at=clock_timestamp() WHERE operation.id = $5::UUID
    AND operation.state = 'running' AND operation.runner = $6::VARCHAR RETURNING operation.id;
