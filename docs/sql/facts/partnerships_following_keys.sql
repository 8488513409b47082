-- facts/partnerships_following_keys
--
-- Reads the page of keys after a key. The worker, as for the first page. No lock. partnership_pkey.
--
-- Parameters: $1 after_partner_org_id, $2 after_org_id, $3 limit

SELECT partnership.partner_org_id, partnership.org_id
FROM partnership
WHERE (partnership.partner_org_id, partnership.org_id) > ($1::UUID, $2::UUID)
    ORDER BY partnership.partner_org_id, partnership.org_id
LIMIT $3::INTEGER;
