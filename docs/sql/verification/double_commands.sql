-- verification/double_commands
--
-- Finds commands with two outcomes. A verification, only where no unique index proves that there is none. No
-- lock. Sorts the whole journal.
--
-- Parameters: $1 through, $2 limit

SELECT command_id, array_agg(position ORDER BY position) AS positions FROM journal WHERE position <= $1
GROUP BY command_id HAVING count(*) > 1 LIMIT $2;
