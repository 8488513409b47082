-- operations/find
--
-- Reads an operation as it stands. An operator's command, seldom. No lock. operation_pkey.
--
-- Parameters: $1 operation_id

SELECT operation.id, operation.kind, operation.parameters, operation.resource, operation.items,
    operation.digest, operation.facts, operation.sample, operation.notes, operation.reason,
    operation.requested_by, operation.approved_by, operation.state, operation.asked_for, operation.detached,
    operation.progress, operation.done, operation.counts, operation.rate_per_second_max, operation.runner,
    operation.leased_until, operation.error, operation.created_at, operation.expires_at, operation.started_at,
    operation.ended_at, clock_timestamp() AS now
FROM operation
WHERE operation.id = $1::UUID;
