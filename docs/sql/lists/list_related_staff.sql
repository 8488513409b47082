-- lists/list_related_staff
--
-- Reads a page of what a user has by membership and partnership. The edge, for each `GET /v1/orgs`. No lock.
-- membership_pkey, partnership_pkey and organization_pkey, one look-up for each organization of the user;
-- staff_pkey.
--
-- Parameters: $1 user_id, $2 param_1 = 0, $3 param_2 = 0, $4 param_3 = 1, $5 param_4 = 0, $6 rows_max, $7
--   param_5 = 0, $8 param_6 = 0

WITH mine AS
(SELECT membership.org_id AS org_id, membership.role AS role, membership.joined_at AS joined_at,
    membership.active AS active
FROM membership
WHERE membership.user_id = $1::VARCHAR AND membership.active),
reached AS
(SELECT partnership.org_id AS org_id, partnership.partner_org_id AS partner_org_id,
    partnership.role AS partner_role, true AS partner_active, partner.org_id AS member_org_id,
    partner.role AS member_role, partner.joined_at AS member_joined_at, partner.active AS member_active
FROM (SELECT mine.org_id AS org_id, mine.role AS role, mine.joined_at AS joined_at, mine.active AS active
FROM mine
WHERE EXISTS (SELECT *
FROM partnership
WHERE partnership.partner_org_id = mine.org_id)
LIMIT ALL OFFSET $7::INTEGER) AS partner JOIN LATERAL (SELECT organization.id AS id,
    organization.name AS name, organization.name_key AS name_key, organization.domain AS domain,
    NULL AS primary_address, organization.created_at AS created_at, organization.updated_at AS updated_at,
    organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at,
    organization.version AS version
FROM organization
WHERE organization.id = partner.org_id AND organization.deleted_at IS NULL
    AND organization.deactivated_at IS NULL
LIMIT ALL OFFSET $8::INTEGER) AS anon_3 ON true JOIN partnership
    ON partnership.partner_org_id = partner.org_id)
SELECT caller.staff, caller.default_id, page.id, page.name, page.name_key, page.domain, page.primary_address,
    page.created_at, page.updated_at, page.deactivated_at, page.deleted_at, page.version, mine.org_id,
    mine.role, mine.joined_at, mine.active, reached.partner_org_id, reached.partner_role,
    reached.partner_active, reached.member_org_id, reached.member_role, reached.member_joined_at,
    reached.member_active
FROM (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS staff, (SELECT joined.org_id
FROM (SELECT mine.org_id AS org_id, mine.role AS role, mine.joined_at AS joined_at, mine.active AS active
FROM mine ORDER BY mine.joined_at, mine.org_id
LIMIT ALL OFFSET $2::INTEGER) AS joined JOIN LATERAL (SELECT organization.id AS id, organization.name AS name,
    organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address,
    organization.created_at AS created_at, organization.updated_at AS updated_at,
    organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at,
    organization.version AS version
FROM organization
WHERE organization.id = joined.org_id AND organization.deleted_at IS NULL
LIMIT ALL OFFSET $3::INTEGER) AS anon_1 ON true ORDER BY joined.joined_at, joined.org_id
LIMIT $4::INTEGER) AS default_id) AS caller LEFT OUTER JOIN (SELECT fetched.id AS id, fetched.name AS name,
    fetched.name_key AS name_key, fetched.domain AS domain, fetched.primary_address AS primary_address,
    fetched.created_at AS created_at, fetched.updated_at AS updated_at,
    fetched.deactivated_at AS deactivated_at, fetched.deleted_at AS deleted_at, fetched.version AS version
FROM (SELECT anon_2.id AS id, anon_2.name AS name, anon_2.name_key AS name_key, anon_2.domain AS domain,
    anon_2.primary_address AS primary_address, anon_2.created_at AS created_at,
    anon_2.updated_at AS updated_at, anon_2.deactivated_at AS deactivated_at, anon_2.deleted_at AS deleted_at,
    anon_2.version AS version
FROM (SELECT mine.org_id AS org_id
FROM mine
WHERE false) AS candidate JOIN LATERAL (SELECT organization.id AS id, organization.name AS name,
    organization.name_key AS name_key, organization.domain AS domain, NULL AS primary_address,
    organization.created_at AS created_at, organization.updated_at AS updated_at,
    organization.deactivated_at AS deactivated_at, organization.deleted_at AS deleted_at,
    organization.version AS version
FROM organization
WHERE organization.id = candidate.org_id AND organization.deleted_at IS NULL
    AND organization.name_key IS NOT NULL
LIMIT ALL OFFSET $5::INTEGER) AS anon_2 ON true) AS fetched ORDER BY fetched.name_key
LIMIT $6::INTEGER) AS page ON true LEFT OUTER JOIN mine ON mine.org_id = page.id LEFT OUTER JOIN reached
    ON reached.org_id = page.id ORDER BY page.name_key;
