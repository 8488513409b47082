-- organizations/list_first
--
-- Reads the first page of all organizations, for `orgs export`. An operator's command, seldom. No lock.
-- organization_pkey.
--
-- Parameters: $1 limit

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization ORDER BY organization.id
LIMIT $1::INTEGER;
