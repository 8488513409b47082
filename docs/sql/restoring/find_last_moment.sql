-- restoring/find_last_moment
--
-- When the last row of the journal was recorded. The plan of `orgs recover`. No lock. journal_pkey.

SELECT recorded_at FROM journal ORDER BY position DESC LIMIT 1;
