-- operations/approve
--
-- Notes who approved a plan. An operator's command, seldom. Locks the row. operation_pkey.
--
-- Parameters: $1 approver, $2 operation_id

UPDATE operation SET approved_by=coalesce(operation.approved_by, $1::VARCHAR) WHERE operation.id = $2::UUID
    AND operation.state = 'planned' AND operation.expires_at > clock_timestamp() RETURNING operation.id;
