-- organizations/list_following
--
-- Reads a later page of all organizations. An operator's command, seldom. No lock. organization_pkey.
--
-- Parameters: $1 after_id, $2 limit

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.id > $1::UUID ORDER BY organization.id
LIMIT $2::INTEGER;
