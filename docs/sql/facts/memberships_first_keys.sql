-- facts/memberships_first_keys
--
-- Reads the first page of all keys, in order. The worker, after it was away for longer than tombstones are
-- kept. No lock. membership_pkey.
--
-- Parameters: $1 limit

SELECT membership.user_id, membership.org_id
FROM membership ORDER BY membership.user_id, membership.org_id
LIMIT $1::INTEGER;
