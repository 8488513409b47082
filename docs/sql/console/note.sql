-- console/note
--
-- Keeps what somebody does on the operators' page. Before each change. Locks the new row.
--
-- Parameters: $1 user_id, $2 act, $3 operation_id

INSERT INTO console_act (user_id, act, operation_id, acted_at) VALUES ($1::VARCHAR, $2::VARCHAR, $3::UUID,
    clock_timestamp());
