-- organizations/find_by_ids
--
-- Reads organizations that differ from the journal. An operator's command, seldom, for what a verification
-- names. No lock. organization_pkey.
--
-- Parameters: $1 ids

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.id = any($1::UUID[]);
