-- operations/find_detached
--
-- Finds the oldest operation that was left to the role `operate`. Its processes, once a second. No lock.
-- operation_created_at_idx.
--
-- Parameters: $1 approval_above, $2 parameters_1 = needs_approval, $3 param_1 = 1

SELECT operation.id
FROM operation
WHERE operation.detached AND (operation.state = 'planned' AND operation.expires_at > clock_timestamp()
    AND (operation.approved_by IS NOT NULL OR operation.items <= $1::INTEGER
    AND NOT coalesce(CAST((operation.parameters ->> $2::TEXT) AS BOOLEAN), false))
    OR operation.state = 'running' AND operation.leased_until <= clock_timestamp())
    ORDER BY operation.created_at
LIMIT $3::INTEGER;
