-- organizations/find_by_id
--
-- Reads an organization by its id. An operator's command, seldom. No lock. organization_pkey.
--
-- Parameters: $1 id

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.id = $1::UUID;
