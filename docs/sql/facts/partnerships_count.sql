-- facts/partnerships_count
--
-- Counts facts. An operator's command, seldom. No lock. Reads the whole table.

SELECT count(*) AS count_1
FROM partnership;
