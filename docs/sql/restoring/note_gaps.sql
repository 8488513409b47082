-- restoring/note_gaps
--
-- Notes the positions that stay empty. A rebuild or a recovery, after fill. journal_pkey.
--
-- Parameters: $1 after, $2 through

INSERT INTO journal_gap (first_position, last_position, noted_at)
SELECT before + 1, position - 1, now() FROM (
SELECT position, lag(position, 1, $1::BIGINT) OVER (ORDER BY position) AS before FROM (
SELECT position FROM journal WHERE position > $1::BIGINT AND position <= $2::BIGINT
UNION ALL SELECT $2::BIGINT + 1
) AS each
) AS pair WHERE position > before + 1;
