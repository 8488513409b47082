-- verification/rows
--
-- Reads the rows of buckets. A verification where digests differ, for each part of the journal. No lock.
-- journal_pkey.
--
-- Parameters: $1 after, $2 through, $3 buckets

SELECT position, command_id, org_id, version, event_type, outcome, code, actor, changed, before, after,
    problem, traceparent, recorded_at FROM journal WHERE position > $1 AND position <= $2
    AND ((get_byte(uuid_send(coalesce(org_id, command_id)),
    14) & 3) << 8 | get_byte(uuid_send(coalesce(org_id, command_id)), 15)) = ANY($3)
    AND NOT (request_digest = '' AND event_type IS DISTINCT FROM 'org.erased') ORDER BY position;
