-- facts/staff_first_keys
--
-- Reads the first page of all keys, in order. The worker, after it was away for longer than tombstones are
-- kept. No lock. staff_pkey.
--
-- Parameters: $1 limit

SELECT staff.user_id
FROM staff ORDER BY staff.user_id
LIMIT $1::INTEGER;
