-- operations/cancel
--
-- Cancels an operation that nobody runs. An operator's command, seldom. Locks the row. operation_pkey.
--
-- Parameters: $1 asked_for, $2 leased_until, $3 operation_id

UPDATE operation SET reason=coalesce(nullif(operation.reason, ''), 'not wanted: cancelled before it ran'),
    state='cancelled', asked_for=$1::VARCHAR, leased_until=$2::TIMESTAMP WITH TIME ZONE,
    ended_at=clock_timestamp() WHERE operation.id = $3::UUID AND (operation.state = 'planned'
    OR operation.state = 'paused' OR operation.state = 'running'
    AND operation.leased_until <= clock_timestamp()) RETURNING operation.id;
