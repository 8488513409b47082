-- outcomes/find_journaled
--
-- Finds which commands of a batch were decided already. The worker, once in each batch, right after the
-- locks: a rival that decided the same commands has committed by then. No lock. journal_command_id_key.
--
-- Parameters: $1 ids

SELECT journal.command_id, journal.position, journal.org_id, journal.version, journal.outcome, journal.code,
    journal.request_digest, journal.command_partition, journal.command_offset, journal.event_type,
    journal.after, journal.problem, journal.traceparent, journal.recorded_at, journal.command_time_ms,
    journal.actor, journal.changed
FROM journal
WHERE journal.command_id = any($1::UUID[]);
