-- recorded/find_clients
--
-- Finds whom organizations serve. A rehearsal, for each batch with a delete. No lock. partnership_pkey.
--
-- Parameters: $1 ids

SELECT DISTINCT partnership.org_id
FROM partnership
WHERE partnership.partner_org_id = any($1::UUID[]);
