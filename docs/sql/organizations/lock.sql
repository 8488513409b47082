-- organizations/lock
--
-- Locks the organizations of a batch and reads them. The worker, once in each batch, first, where no command
-- claims a name. Row locks (FOR UPDATE) in order of id until the commit, so that two workers cannot wait for
-- each other. organization_pkey.
--
-- Parameters: $1 ids

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.id = any($1::UUID[]) ORDER BY organization.id FOR UPDATE;
