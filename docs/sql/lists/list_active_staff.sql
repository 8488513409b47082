-- lists/list_active_staff
--
-- Reads a page of all active organizations. The edge, for `GET /v1/orgs` of staff. No lock.
-- organization_name_key_key or organization_created_at_idx in page order; a search also
-- organization_domain_idx. organization_pkey and membership_pkey for what is on the page.
--
-- Parameters: $1 user_id, $2 rows_max

SELECT organization.id, organization.name, organization.name_key, organization.domain,
    NULL AS primary_address, organization.created_at, organization.updated_at, organization.deactivated_at,
    organization.deleted_at, organization.version, own.org_id, own.role, own.joined_at, own.active
FROM organization JOIN (SELECT chosen.id AS id, chosen.name_key AS name_key, chosen.created_at AS created_at
FROM ((SELECT organization.id AS id, organization.name_key AS name_key, organization.created_at AS created_at
FROM organization
WHERE organization.deleted_at IS NULL AND organization.deactivated_at IS NULL
    AND organization.name_key IS NOT NULL AND NOT (EXISTS (SELECT *
FROM membership
WHERE membership.user_id = $1::VARCHAR AND membership.org_id = organization.id AND membership.active))
    ORDER BY organization.name_key
LIMIT $2::INTEGER)) AS chosen ORDER BY chosen.name_key
LIMIT $2::INTEGER) AS page ON page.id = organization.id LEFT OUTER JOIN membership AS own
    ON own.user_id = $1::VARCHAR AND own.org_id = page.id ORDER BY organization.name_key;
