-- relations/find_staff
--
-- Reads which users of a batch are staff. The worker, once in each batch with tokens. No lock. staff_pkey, or
-- the whole table while it is small.
--
-- Parameters: $1 users

SELECT staff.user_id
FROM staff
WHERE staff.user_id = any($1::TEXT[]);
