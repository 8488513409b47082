-- verification/rows_at
--
-- Reads rows by position. A verification where digests differ, and for records that were sent twice. No lock.
-- journal_pkey.
--
-- Parameters: $1 positions

SELECT position, command_id, org_id, version, event_type, outcome, code, actor, changed, before, after,
    problem, traceparent, recorded_at FROM journal WHERE position = ANY($1);
