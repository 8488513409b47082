-- operations/cancel
--
-- Cancels an operation that nobody runs. An operator's command, seldom. Locks the row. operation_pkey.
--
-- Parameters: $1 leased_until, $2 operation_id

UPDATE operation SET state='cancelled', leased_until=$1::TIMESTAMP WITH TIME ZONE, ended_at=clock_timestamp()
    WHERE operation.id = $2::UUID AND (operation.state = 'planned' OR operation.state = 'paused'
    OR operation.state = 'running' AND operation.leased_until <= clock_timestamp()) RETURNING operation.id;
