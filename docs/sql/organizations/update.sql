-- organizations/update
--
-- Updates the organizations that a batch changes. The worker, once in each batch that changes some. The rows
-- are locked already. organization_pkey; an update that changes no indexed column stays on its page (HOT).
--
-- Parameters: $1 given_moment, $2 given_id, $3 given_name, $4 given_name_key, $5 given_domain, $6
--   given_primary_address, $7 given_deactivated_at, $8 given_deleted_at, $9 given_version

UPDATE organization SET name=given.name, name_key=given.name_key, domain=given.domain,
    primary_address=CAST(given.primary_address AS JSONB), updated_at=greatest(organization.updated_at,
    $1::TIMESTAMP WITH TIME ZONE), deactivated_at=given.deactivated_at, deleted_at=given.deleted_at,
    version=given.version FROM unnest($2::UUID[], $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TEXT[],
    $7::TIMESTAMP WITH TIME ZONE[], $8::TIMESTAMP WITH TIME ZONE[], $9::BIGINT[]) AS given(id, name, name_key,
    domain, primary_address, deactivated_at, deleted_at, version) WHERE organization.id = given.id;
