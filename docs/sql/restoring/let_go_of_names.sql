-- restoring/let_go_of_names
--
-- Lets organizations that changed give up their names, so that they may exchange them. A rebuild or a
-- recovery, for each 5,000 organizations. organization_pkey.
--
-- Parameters: $1 after_id, $2 limit

WITH page AS (SELECT id, name, name_key, domain, primary_address, created_at, updated_at, deactivated_at,
    deleted_at, version FROM restoring_organization WHERE id > $1::UUID ORDER BY id LIMIT $2::INTEGER),
    freed AS (UPDATE organization SET name_key = 'restoring ' || organization.id FROM page
    WHERE organization.id = page.id AND organization.version < page.version
    AND organization.name_key IS NOT NULL) SELECT id FROM page ORDER BY id DESC LIMIT 1;
