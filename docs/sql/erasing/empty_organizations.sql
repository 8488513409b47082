-- erasing/empty_organizations
--
-- Empties them. A step of `orgs erase` or `orgs purge`. The rows are locked already. organization_pkey.
--
-- Parameters: $1 name = , $2 domain, $3 given_id, $4 given_updated_at

UPDATE organization SET name=$1::VARCHAR, domain=$2::VARCHAR COLLATE "C", primary_address=NULL,
    updated_at=given.updated_at, version=(organization.version + 1) FROM unnest($3::UUID[],
    $4::TIMESTAMP WITH TIME ZONE[]) AS given(id, updated_at) WHERE organization.id = given.id;
