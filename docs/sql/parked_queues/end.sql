-- parked_queues/end
--
-- Notes that records are released or discarded. An operator's command, seldom, in each step. The rows are
-- locked already. parked_pkey.
--
-- Parameters: $1 new_state, $2 new_operation_id, $3 new_ended_at, $4 given_ids

UPDATE parked SET state=$1::VARCHAR, operation_id=$2::UUID, ended_at=$3::TIMESTAMP WITH TIME ZONE
    WHERE parked.id = any($4::BIGINT[]);
