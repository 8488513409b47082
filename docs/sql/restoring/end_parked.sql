-- restoring/end_parked
--
-- Ends parked commands that were decided since the backup. A rebuild or a recovery, once.
-- parked_command_id_idx and journal_command_id_key.
--
-- Parameters: $1 after

UPDATE parked
    SET state = CASE WHEN journal.problem LIKE '%urn:orgs:problem:discarded%' THEN 'discarded' ELSE 'released' END,
    ended_at = journal.recorded_at FROM journal WHERE parked.state = 'open'
    AND journal.command_id = parked.command_id AND journal.position > $1::BIGINT;
