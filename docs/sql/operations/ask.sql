-- operations/ask
--
-- Asks the process that runs an operation to pause or cancel it. An operator's command, seldom. Locks the
-- row. operation_pkey.
--
-- Parameters: $1 wish, $2 operation_id

UPDATE operation SET asked_for=$1::VARCHAR WHERE operation.id = $2::UUID AND operation.state = 'running'
    AND operation.leased_until > clock_timestamp() RETURNING operation.id;
