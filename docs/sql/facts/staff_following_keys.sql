-- facts/staff_following_keys
--
-- Reads the page of keys after a key. The worker, as for the first page. No lock. staff_pkey.
--
-- Parameters: $1 after_user_id, $2 limit

SELECT staff.user_id
FROM staff
WHERE (staff.user_id) > ($1::VARCHAR) ORDER BY staff.user_id
LIMIT $2::INTEGER;
