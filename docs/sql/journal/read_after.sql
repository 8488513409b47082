-- journal/read_after
--
-- Reads the next rows to publish, in order. The leading relay, again and again: for each chunk of some
-- thousand rows, and once a second when nothing happens. No lock. journal_pkey.
--
-- Parameters: $1 position, $2 limit

SELECT journal.position, journal.command_id, journal.org_id, journal.version, journal.event_type,
    journal.outcome, journal.code, journal.actor, journal.changed, journal.before, journal.after,
    journal.problem, journal.traceparent, journal.recorded_at
FROM journal
WHERE journal.position > $1::BIGINT ORDER BY journal.position
LIMIT $2::INTEGER;
