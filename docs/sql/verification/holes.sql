-- verification/holes
--
-- Finds positions without a row. A verification where digests differ, in one part of the journal. No lock.
-- journal_pkey.
--
-- Parameters: $1 after, $2 through, $3 limit

SELECT behind + 1 AS first_position, position - 1 AS last_position FROM (
SELECT position, lag(position, 1, CAST($1 AS bigint)) OVER (ORDER BY position) AS behind
FROM (SELECT position FROM journal WHERE position > $1 AND position <= $2
UNION ALL SELECT CAST($2 AS bigint) + 1) AS each) AS pair
WHERE position > behind + 1 ORDER BY 1 LIMIT $3;
