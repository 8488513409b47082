-- operations/list
--
-- Lists the latest operations. An operator's command, seldom. No lock. operation_created_at_idx.
--
-- Parameters: $1 limit

SELECT operation.id, operation.kind, operation.parameters, operation.resource, operation.items,
    operation.digest, operation.facts, operation.sample, operation.notes, operation.reason,
    operation.requested_by, operation.approved_by, operation.state, operation.asked_for, operation.detached,
    operation.progress, operation.done, operation.counts, operation.rate_per_second_max, operation.runner,
    operation.leased_until, operation.error, operation.created_at, operation.expires_at, operation.started_at,
    operation.ended_at, clock_timestamp() AS now
FROM operation ORDER BY operation.created_at DESC
LIMIT $1::INTEGER;
