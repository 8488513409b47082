-- erasing/lock
--
-- Locks the organizations of a step. A step of `orgs erase` or `orgs purge`, first. Row locks (FOR UPDATE) in
-- order of id until the commit. organization_pkey.
--
-- Parameters: $1 deleted_through, $2 ids

SELECT organization.id, organization.version, organization.deleted_at, organization.updated_at
FROM organization
WHERE organization.deleted_at <= $1::TIMESTAMP WITH TIME ZONE AND organization.name != ''
    AND organization.id = any($2::UUID[]) ORDER BY organization.id FOR UPDATE;
