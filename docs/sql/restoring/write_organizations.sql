-- restoring/write_organizations
--
-- Writes organizations as they are kept. A rebuild or a recovery, for each 5,000. organization_pkey.
--
-- Parameters: $1 after_id, $2 limit

WITH page AS (SELECT id, name, name_key, domain, primary_address, created_at, updated_at, deactivated_at,
    deleted_at, version FROM restoring_organization WHERE id > $1::UUID ORDER BY id LIMIT $2::INTEGER),
    written AS (INSERT INTO organization (id, name, name_key, domain, primary_address, created_at, updated_at,
    deactivated_at, deleted_at, version) SELECT id, name, name_key, domain, primary_address, created_at,
    updated_at, deactivated_at, deleted_at, version FROM page ON CONFLICT (id) DO UPDATE
    SET name = excluded.name, name_key = excluded.name_key, domain = excluded.domain,
    primary_address = excluded.primary_address,
    created_at = CASE WHEN excluded.name = '' THEN coalesce(organization.created_at,
    excluded.created_at) ELSE excluded.created_at END, updated_at = excluded.updated_at,
    deactivated_at = CASE WHEN excluded.name = '' THEN coalesce(organization.deactivated_at,
    excluded.deactivated_at) ELSE excluded.deactivated_at END,
    deleted_at = CASE WHEN excluded.name = '' THEN coalesce(organization.deleted_at,
    excluded.deleted_at) ELSE excluded.deleted_at END, version = excluded.version
    WHERE organization.version < excluded.version) SELECT id FROM page ORDER BY id DESC LIMIT 1;
