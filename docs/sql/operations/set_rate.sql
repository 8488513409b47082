-- operations/set_rate
--
-- Bounds the rate of an operation. An operator's command, seldom. Locks the row. operation_pkey.
--
-- Parameters: $1 rate, $2 operation_id

UPDATE operation SET rate_per_second_max=$1::FLOAT WHERE operation.id = $2::UUID
    AND (operation.state = 'planned' OR operation.state = 'running' OR operation.state = 'paused')
    RETURNING operation.id;
