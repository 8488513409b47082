-- organizations/lock_with_holders
--
-- Locks the organizations of a batch and the holders of the names it claims. The worker, once in each batch,
-- first, where a command claims a name. Row locks (FOR UPDATE) in order of id until the commit.
-- organization_pkey and organization_name_key_key.
--
-- Parameters: $1 ids, $2 keys

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version
FROM organization
WHERE organization.id = any($1::UUID[]) OR organization.name_key = any($2::TEXT[])
    ORDER BY organization.id FOR UPDATE;
