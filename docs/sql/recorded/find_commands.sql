-- recorded/find_commands
--
-- Finds the outcomes of commands. A rehearsal, for each batch, and a plan of `orgs replay commands`. No lock.
-- journal_command_id_key.
--
-- Parameters: $1 ids

SELECT journal.position, journal.command_id, journal.org_id, journal.version, journal.command_type,
    journal.event_type, journal.outcome, journal.code, journal.actor, journal.request_digest,
    journal.command_partition, journal.command_offset, journal.changed, journal.before, journal.after,
    journal.problem, journal.traceparent, journal.recorded_at, journal.command_time_ms
FROM journal
WHERE journal.command_id = any($1::UUID[]) AND (length(journal.request_digest) > 0 OR journal.code = 500);
