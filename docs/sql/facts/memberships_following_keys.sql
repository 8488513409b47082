-- facts/memberships_following_keys
--
-- Reads the page of keys after a key. The worker, as for the first page. No lock. membership_pkey.
--
-- Parameters: $1 after_user_id, $2 after_org_id, $3 limit

SELECT membership.user_id, membership.org_id
FROM membership
WHERE (membership.user_id, membership.org_id) > ($1::VARCHAR, $2::UUID) ORDER BY membership.user_id,
    membership.org_id
LIMIT $3::INTEGER;
