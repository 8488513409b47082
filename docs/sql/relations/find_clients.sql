-- relations/find_clients
--
-- Reads whom organizations serve as partners. The worker, in a batch that deletes some. No lock.
-- partnership_pkey and organization_pkey.
--
-- Parameters: $1 ids

SELECT partnership.partner_org_id, partnership.org_id, organization.id IS NOT NULL
    AND organization.deleted_at IS NULL AS alive
FROM partnership LEFT OUTER JOIN organization ON organization.id = partnership.org_id
WHERE partnership.partner_org_id = any($1::UUID[]);
