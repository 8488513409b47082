-- lists/list_active_searched
--
-- Reads a page of all active organizations. The edge, for `GET /v1/orgs` of staff. No lock.
-- organization_name_key_key or organization_created_at_idx in page order; a search also
-- organization_domain_idx. organization_pkey and membership_pkey for what is on the page.
--
-- Parameters: $1 search_from, $2 search_to, $3 rows_max, $4 param_1 = 0, $5 user_id, $6 param_2 = 0

WITH met AS
(SELECT anon_1.id AS id, anon_1.name_key AS name_key, anon_1.created_at AS created_at
FROM (SELECT walked.id AS id, walked.name_key AS name_key, walked.created_at AS created_at,
    walked.domain AS domain
FROM (SELECT organization.id AS id, organization.name_key AS name_key, organization.created_at AS created_at,
    organization.domain AS domain
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL
    AND organization.name_key IS NOT NULL ORDER BY organization.name_key
LIMIT 1000) AS walked
WHERE walked.name_key >= $1::VARCHAR AND walked.name_key < $2::VARCHAR OR walked.domain >= $1::VARCHAR
    AND walked.domain < $2::VARCHAR) AS anon_1 ORDER BY anon_1.name_key
LIMIT $3::INTEGER)
SELECT organization.id, organization.name, organization.name_key, organization.domain,
    NULL AS primary_address, organization.created_at, organization.updated_at, organization.deactivated_at,
    organization.deleted_at, organization.version, own.org_id, own.role, own.joined_at, own.active
FROM organization JOIN (SELECT chosen.id AS id, chosen.name_key AS name_key, chosen.created_at AS created_at
FROM (SELECT met.id AS id, met.name_key AS name_key, met.created_at AS created_at
FROM met
WHERE (SELECT count(*) AS count_1
FROM met) >= $3::INTEGER UNION ALL (SELECT organization.id AS id, organization.name_key AS name_key,
    organization.created_at AS created_at
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL
    AND organization.name_key IS NOT NULL AND (SELECT count(*) AS count_1
FROM met) < $3::INTEGER AND organization.name_key >= $1::VARCHAR AND organization.name_key < $2::VARCHAR
    ORDER BY organization.name_key
LIMIT $3::INTEGER) UNION ALL (SELECT anon_2.id AS id, anon_2.name_key AS name_key,
    anon_2.created_at AS created_at
FROM (SELECT organization.id AS id, organization.name_key AS name_key, organization.created_at AS created_at
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL
    AND organization.name_key IS NOT NULL AND (SELECT count(*) AS count_1
FROM met) < $3::INTEGER AND organization.domain >= $1::VARCHAR AND organization.domain < $2::VARCHAR
    AND NOT (organization.name_key >= $1::VARCHAR AND organization.name_key < $2::VARCHAR)
LIMIT ALL OFFSET $4::INTEGER) AS anon_2 ORDER BY anon_2.name_key
LIMIT $3::INTEGER) UNION ALL (SELECT anon_3.id AS id, anon_3.name_key AS name_key,
    anon_3.created_at AS created_at
FROM (SELECT anon_4.id AS id, anon_4.name AS name, anon_4.name_key AS name_key, anon_4.domain AS domain,
    anon_4.primary_address AS primary_address, anon_4.created_at AS created_at,
    anon_4.updated_at AS updated_at, anon_4.deactivated_at AS deactivated_at, anon_4.deleted_at AS deleted_at,
    anon_4.version AS version
FROM (SELECT membership.org_id AS org_id
FROM membership
WHERE membership.user_id = $5::VARCHAR AND membership.active) AS mine
    JOIN LATERAL (SELECT organization.id AS id, organization.name AS name, organization.name_key AS name_key,
    organization.domain AS domain, NULL AS primary_address, organization.created_at AS created_at,
    organization.updated_at AS updated_at, organization.deactivated_at AS deactivated_at,
    organization.deleted_at AS deleted_at, organization.version AS version
FROM organization
WHERE organization.id = mine.org_id AND organization.deleted_at IS NULL
    AND NOT (organization.deleted_at IS NULL AND organization.deactivated_at IS NULL)
    AND organization.name_key IS NOT NULL AND (organization.name_key >= $1::VARCHAR
    AND organization.name_key < $2::VARCHAR OR organization.domain >= $1::VARCHAR
    AND organization.domain < $2::VARCHAR)
LIMIT ALL OFFSET $6::INTEGER) AS anon_4 ON true) AS anon_3 ORDER BY anon_3.name_key
LIMIT $3::INTEGER)) AS chosen ORDER BY chosen.name_key
LIMIT $3::INTEGER) AS page ON page.id = organization.id LEFT OUTER JOIN membership AS own
    ON own.user_id = $5::VARCHAR AND own.org_id = page.id ORDER BY organization.name_key;
