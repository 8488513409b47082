-- operations/detach
--
-- Leaves an operation to the role `operate`. An operator's command, seldom. Locks the row. operation_pkey.
--
-- Parameters: $1 new_reason, $2 detached = True, $3 operation_id

UPDATE operation SET reason=coalesce($1::VARCHAR, operation.reason),
    state=CASE WHEN (operation.state = 'paused') THEN 'running' ELSE operation.state END,
    detached=$2::BOOLEAN,
    leased_until=CASE WHEN (operation.state = 'paused') THEN clock_timestamp() ELSE operation.leased_until END
    WHERE operation.id = $3::UUID AND (operation.state = 'planned'
    AND operation.expires_at > clock_timestamp() OR operation.state = 'paused' OR operation.state = 'running'
    AND operation.leased_until <= clock_timestamp()) RETURNING operation.id;
