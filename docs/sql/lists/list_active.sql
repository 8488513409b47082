-- lists/list_active
--
-- Reads a page of all active organizations. The edge, for `GET /v1/orgs` of staff. No lock.
-- organization_name_key_key or organization_created_at_idx in page order; a search also
-- organization_domain_idx. organization_pkey and membership_pkey for what is on the page.
--
-- Parameters: $1 rows_max, $2 user_id, $3 param_1 = 0

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    NULL AS primary_address, organization.created_at, organization.updated_at, organization.deactivated_at,
    organization.deleted_at, organization.version, own.org_id, own.role, own.joined_at, own.active
FROM organization JOIN (SELECT chosen.id AS id, chosen.name_key AS name_key, chosen.created_at AS created_at
FROM ((SELECT organization.id AS id, organization.name_key AS name_key, organization.created_at AS created_at
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL
    AND organization.name_key IS NOT NULL ORDER BY organization.name_key
LIMIT $1::INTEGER) UNION ALL (SELECT anon_1.id AS id, anon_1.name_key AS name_key,
    anon_1.created_at AS created_at
FROM (SELECT anon_2.id AS id, anon_2.name AS name, anon_2.name_key AS name_key, anon_2.domain AS domain,
    anon_2.primary_address AS primary_address, anon_2.created_at AS created_at,
    anon_2.updated_at AS updated_at, anon_2.deactivated_at AS deactivated_at, anon_2.deleted_at AS deleted_at,
    anon_2.version AS version
FROM (SELECT membership.org_id AS org_id
FROM membership
WHERE membership.user_id = $2::VARCHAR AND membership.active) AS mine
    JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key,
    organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at,
    organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at,
    organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = mine.org_id AND organization.deleted_at IS NULL
    AND NOT (organization.deleted_at IS NULL AND organization.deactivated_at IS NULL)
    AND organization.name_key IS NOT NULL
LIMIT ALL OFFSET $3::INTEGER) AS anon_2 ON true) AS anon_1 ORDER BY anon_1.name_key
LIMIT $1::INTEGER)) AS chosen ORDER BY chosen.name_key
LIMIT $1::INTEGER) AS page ON page.id = organization.id LEFT OUTER JOIN membership AS own
    ON own.user_id = $2::VARCHAR AND own.org_id = page.id ORDER BY organization.name_key;
