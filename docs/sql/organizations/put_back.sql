-- organizations/put_back
--
-- Writes an organization as the journal has it. An operator's command, seldom (`orgs repair`). Locks the row
-- until the commit. organization_pkey.
--
-- Parameters: $1 given_id, $2 given_name, $3 given_name_key, $4 given_domain, $5 given_primary_address, $6
--   given_created_at, $7 given_updated_at, $8 given_deactivated_at, $9 given_deleted_at, $10 given_version

INSERT INTO organization (id, name, name_key, domain, primary_address, created_at, updated_at, deactivated_at,
    deleted_at, version) SELECT given.id, given.name, given.name_key, given.domain,
    CAST(given.primary_address AS JSONB) AS primary_address, given.created_at, given.updated_at,
    given.deactivated_at, given.deleted_at, given.version
FROM unnest($1::UUID[], $2::TEXT[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TIMESTAMP WITH TIME ZONE[],
    $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE[], $9::TIMESTAMP WITH TIME ZONE[],
    $10::BIGINT[]) AS given(id, name, name_key, domain, primary_address, created_at, updated_at,
    deactivated_at, deleted_at, version) ON CONFLICT (id) DO UPDATE SET name = excluded.name,
    name_key = excluded.name_key, domain = excluded.domain, primary_address = excluded.primary_address,
    created_at = excluded.created_at, updated_at = excluded.updated_at,
    deactivated_at = excluded.deactivated_at, deleted_at = excluded.deleted_at, version = excluded.version;
