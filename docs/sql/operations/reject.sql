-- operations/reject
--
-- Ends a plan that can't be begun. The role `operate`. Locks the row. operation_pkey.
--
-- Parameters: $1 new_error, $2 operation_id

UPDATE operation SET state='failed', error=$1::VARCHAR, ended_at=clock_timestamp()
    WHERE operation.id = $2::UUID AND operation.state = 'planned' RETURNING operation.id;
