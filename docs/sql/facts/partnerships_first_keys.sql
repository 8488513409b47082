-- facts/partnerships_first_keys
--
-- Reads the first page of all keys, in order. The worker, after it was away for longer than tombstones are
-- kept. No lock. partnership_pkey.
--
-- Parameters: $1 limit

SELECT partnership.partner_org_id, partnership.org_id
FROM partnership ORDER BY partnership.partner_org_id, partnership.org_id
LIMIT $1::INTEGER;
