-- past/find_moment
--
-- Reads when a position was recorded. An operator's command, seldom: some 30 times for `--at` with a time. No
-- lock. journal_pkey.
--
-- Parameters: $1 position, $2 param_1 = 1

SELECT journal.position, journal.recorded_at
FROM journal
WHERE journal.position >= $1::BIGINT ORDER BY journal.position
LIMIT $2::INTEGER;
