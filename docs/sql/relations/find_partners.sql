-- relations/find_partners
--
-- Reads which partners serve the organizations of a batch, and whether they are active. The worker, once in
-- each batch with tokens. No lock. partnership_org_id_idx and organization_pkey.
--
-- Parameters: $1 ids

SELECT partnership.org_id, partnership.partner_org_id, partnership.role, organization.id IS NOT NULL
    AND organization.deleted_at IS NULL AND organization.deactivated_at IS NULL AS partner_active
FROM partnership LEFT OUTER JOIN organization ON organization.id = partnership.partner_org_id
WHERE partnership.org_id = any($1::UUID[]);
