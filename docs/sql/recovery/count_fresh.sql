-- recovery/count_fresh
--
-- Counts the rows journaled since a backup was restored. An operator's command, seldom. Reads the whole
-- table.
--
-- Parameters: $1 moment

SELECT count(*) AS count_1
FROM journal
WHERE journal.recorded_at > $1::TIMESTAMP WITH TIME ZONE;
