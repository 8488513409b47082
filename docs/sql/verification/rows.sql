-- verification/rows
--
-- Reads a part of the journal. A verification where digests differ. No lock. journal_pkey.
--
-- Parameters: $1 after, $2 through

SELECT position, command_id, org_id, version, event_type, outcome, code, actor, changed, before, after,
    problem, traceparent, recorded_at FROM journal WHERE position > $1 AND position <= $2
    AND NOT (request_digest = '' AND event_type IS DISTINCT FROM 'org.erased') ORDER BY position;
