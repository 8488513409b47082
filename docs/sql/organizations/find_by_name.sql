-- organizations/find_by_name
--
-- Reads the organization that has a name. An operator's command, seldom. No lock. organization_name_key_key.
--
-- Parameters: $1 name_key

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.name_key = $1::VARCHAR;
