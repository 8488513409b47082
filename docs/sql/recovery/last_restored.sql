-- recovery/last_restored
--
-- Reads the last position that a backup had. An operator's command, seldom. Reads the whole table.
--
-- Parameters: $1 greatest_2 = 0, $2 moment

SELECT greatest($1::INTEGER, (SELECT max(journal.position) AS max_1
FROM journal
WHERE journal.recorded_at <= $2::TIMESTAMP WITH TIME ZONE), (SELECT max(journal_gap.last_position) AS max_2
FROM journal_gap)) AS greatest_1;
