-- notes/list_operations
--
-- Reads the texts of operations that are new, or ended since. A step of `orgs erase` or `orgs purge`; `orgs
-- erase --status`. No lock. Reads the whole table.
--
-- Parameters: $1 since

SELECT operation.id, operation.parameters, operation.facts, operation.sample, operation.notes,
    operation.progress, operation.reason, operation.error, operation.items, operation.ended_at IS NOT NULL
    OR operation.state = 'planned' AND operation.expires_at <= clock_timestamp() AS "over",
    greatest(operation.created_at, operation.ended_at, operation.started_at) AS changed_at
FROM operation
WHERE greatest(operation.created_at, operation.ended_at, operation.started_at) >= $1::TIMESTAMP WITH TIME ZONE;
