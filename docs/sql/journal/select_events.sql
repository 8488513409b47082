-- journal/select_events
--
-- Reads the next changes of a selection; null asks for all. An operator's command, seldom, a window of the
-- journal at a time. No lock. journal_pkey, or journal_org_id_version_key where few organizations are meant.
--
-- Parameters: $1 position, $2 through, $3 org_ids, $4 types, $5 actors, $6 command_ids, $7 from_time, $8
--   to_time, $9 trace_ids, $10 limit

SELECT journal.position, journal.command_id, journal.org_id, journal.version, journal.event_type,
    journal.outcome, journal.code, journal.actor, journal.changed, journal.before, journal.after,
    journal.problem, journal.traceparent, journal.recorded_at
FROM journal
WHERE journal.position > $1::BIGINT AND journal.position <= $2::BIGINT AND journal.event_type IS NOT NULL
    AND ($3::UUID[] IS NULL OR journal.org_id = any($3::UUID[])) AND ($4::TEXT[] IS NULL
    OR journal.event_type = any($4::TEXT[])) AND ($5::TEXT[] IS NULL OR journal.actor = any($5::TEXT[]))
    AND ($6::UUID[] IS NULL OR journal.command_id = any($6::UUID[])) AND ($7::TIMESTAMP WITH TIME ZONE IS NULL
    OR journal.recorded_at >= $7::TIMESTAMP WITH TIME ZONE) AND ($8::TIMESTAMP WITH TIME ZONE IS NULL
    OR journal.recorded_at < $8::TIMESTAMP WITH TIME ZONE) AND ($9::TEXT[] IS NULL
    OR substr(journal.traceparent, 4, 32) = any($9::TEXT[])) AND (journal.before IS NOT NULL
    OR journal.after IS NOT NULL OR journal.event_type = 'org.erased') ORDER BY journal.position
LIMIT $10::INTEGER;
