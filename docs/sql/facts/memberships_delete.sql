-- facts/memberships_delete
--
-- Deletes facts that were taken back. The worker, in each batch of reference data with tombstones. Row locks
-- until the commit. membership_pkey, or the whole table while it is small.
--
-- Parameters: $1 given_user_id, $2 given_org_id

DELETE FROM membership USING unnest($1::TEXT[], $2::UUID[]) AS given(user_id, org_id)
    WHERE membership.user_id = given.user_id AND membership.org_id = given.org_id;
