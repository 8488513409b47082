-- restoring/count
--
-- Counts the rows of positions. A rebuild or a recovery, for each 50,000 positions. journal_pkey.
--
-- Parameters: $1 after, $2 through

SELECT count(*) FROM journal WHERE position > $1::BIGINT AND position <= $2::BIGINT;
