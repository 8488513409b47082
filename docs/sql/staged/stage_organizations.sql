-- staged/stage_organizations
--
-- Keeps organizations as their last change has them; an earlier version never takes the place of a later one.
-- A rebuild or a recovery, for each step of state, and for each 5,000 that changed.
--
-- Parameters: $1 given_id, $2 given_name, $3 given_name_key, $4 given_domain, $5 given_primary_address, $6
--   given_created_at, $7 given_updated_at, $8 given_deactivated_at, $9 given_deleted_at, $10 given_version

INSERT INTO restoring_organization (id, name, name_key, domain, primary_address, created_at, updated_at,
    deactivated_at, deleted_at, version) SELECT id, name, name_key, domain, CAST(primary_address AS jsonb),
    created_at, updated_at, deactivated_at, deleted_at, version FROM unnest($1::UUID[], $2::TEXT[],
    $3::TEXT[], $4::TEXT[], $5::TEXT[], $6::TIMESTAMP WITH TIME ZONE[], $7::TIMESTAMP WITH TIME ZONE[],
    $8::TIMESTAMP WITH TIME ZONE[], $9::TIMESTAMP WITH TIME ZONE[], $10::BIGINT[]) AS given (id, name,
    name_key, domain, primary_address, created_at, updated_at, deactivated_at, deleted_at, version)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, name_key = excluded.name_key,
    domain = excluded.domain, primary_address = excluded.primary_address,
    created_at = CASE WHEN excluded.name = '' THEN coalesce(restoring_organization.created_at,
    excluded.created_at) ELSE excluded.created_at END, updated_at = excluded.updated_at,
    deactivated_at = CASE WHEN excluded.name = '' THEN coalesce(restoring_organization.deactivated_at,
    excluded.deactivated_at) ELSE excluded.deactivated_at END,
    deleted_at = CASE WHEN excluded.name = '' THEN coalesce(restoring_organization.deleted_at,
    excluded.deleted_at) ELSE excluded.deleted_at END, version = excluded.version
    WHERE restoring_organization.version < excluded.version;
