-- recorded/find_partners
--
-- Finds who serves organizations. A rehearsal, for each batch with tokens. No lock. partnership_org_id_idx.
--
-- Parameters: $1 ids

SELECT DISTINCT partnership.partner_org_id
FROM partnership
WHERE partnership.org_id = any($1::UUID[]);
