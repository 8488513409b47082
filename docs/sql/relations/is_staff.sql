-- relations/is_staff
--
-- Whether a user is staff. The edge, for `GET /v1/commands/{id}` of somebody else's command. No lock.
-- staff_pkey.
--
-- Parameters: $1 user_id

SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS anon_1;
