-- journal/take_positions
--
-- Takes the next positions of the journal and wakes the relay at the commit. The worker, once in each batch,
-- last before the rows (first, where a name changes hands). Locks the one row of journal_head until the
-- commit: every other worker waits here, and therefore commits in order of position. No index: the table has
-- one row.
--
-- Parameters: $1 rows, $2 pg_notify_2 = orgs_journal, $3 pg_notify_3 =

UPDATE journal_head SET position=(journal_head.position + $1::BIGINT)
    RETURNING journal_head.position - $1::BIGINT AS anon_1, pg_notify($2::VARCHAR, $3::VARCHAR) AS pg_notify_1;
