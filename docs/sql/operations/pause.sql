-- operations/pause
--
-- Pauses an operation whose process is gone. An operator's command, seldom. Locks the row. operation_pkey.
--
-- Parameters: $1 leased_until, $2 operation_id

UPDATE operation SET state='paused', leased_until=$1::TIMESTAMP WITH TIME ZONE WHERE operation.id = $2::UUID
    AND operation.state = 'running' AND operation.leased_until <= clock_timestamp() RETURNING operation.id;
