-- organizations/find_deleted_by_name
--
-- Reads deleted organizations by name. An operator's command, seldom, and each search on the operators' page.
-- No lock. organization_deleted_name_idx.
--
-- Parameters: $1 name, $2 param_1 = 20

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.deleted_at IS NOT NULL AND lower(organization.name) = lower($1::VARCHAR)
    ORDER BY organization.updated_at DESC
LIMIT $2::INTEGER;
