-- erasing/list
--
-- Lists organizations that can be erased, a page at a time. A plan and run of `orgs erase` or `orgs purge`.
-- No lock. organization_pkey, the whole table where none are asked for.
--
-- Parameters: $1 deleted_through, $2 ids, $3 after_id, $4 limit

SELECT organization.id, organization.version, organization.deleted_at, organization.updated_at
FROM organization
WHERE organization.deleted_at <= $1::TIMESTAMP WITH TIME ZONE AND organization.name != ''
    AND ($2::UUID[] IS NULL OR organization.id = any($2::UUID[])) AND organization.id > $3::UUID
    ORDER BY organization.id
LIMIT $4::INTEGER;
