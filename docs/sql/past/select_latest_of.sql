-- past/select_latest_of
--
-- Reads the latest outcomes of an organization. An operator's command, seldom, for `orgs trace`. No lock.
-- Reads the last 200,000 positions by journal_pkey.
--
-- Parameters: $1 org_id, $2 position, $3 limit

SELECT journal.position, journal.command_id, journal.org_id, journal.version, journal.command_type,
    journal.event_type, journal.outcome, journal.code, journal.actor, journal.request_digest,
    journal.command_partition, journal.command_offset, journal.changed, journal.before, journal.after,
    journal.problem, journal.traceparent, journal.recorded_at, journal.command_time_ms
FROM journal
WHERE journal.org_id = $1::UUID AND journal.position > $2::BIGINT ORDER BY journal.position DESC
LIMIT $3::INTEGER;
