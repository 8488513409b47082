-- facts/staff_delete
--
-- Deletes facts that were taken back. The worker, in each batch of reference data with tombstones. Row locks
-- until the commit. staff_pkey, or the whole table while it is small.
--
-- Parameters: $1 given_user_id

DELETE FROM staff USING unnest($1::TEXT[]) AS given(user_id) WHERE staff.user_id = given.user_id;
