-- console/list_acts
--
-- Reads what was done to an operation on the operators' page. The page of a run. No lock.
-- console_act_operation_id_idx.
--
-- Parameters: $1 operation_id, $2 limit

SELECT console_act.act, console_act.user_id, console_act.acted_at
FROM console_act
WHERE console_act.operation_id = $1::UUID ORDER BY console_act.id DESC
LIMIT $2::INTEGER;
