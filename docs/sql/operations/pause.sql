-- operations/pause
--
-- Pauses an operation whose process is gone. An operator's command, seldom. Locks the row. operation_pkey.
--
-- Parameters: $1 asked_for, $2 leased_until, $3 operation_id

UPDATE operation SET state='paused', asked_for=$1::VARCHAR, leased_until=$2::TIMESTAMP WITH TIME ZONE
    WHERE operation.id = $3::UUID AND operation.state = 'running'
    AND operation.leased_until <= clock_timestamp() RETURNING operation.id;
