-- directory/find
--
-- Reads an organization with the rows that say what the user is in it. The edge, for each request about one
-- organization; the same work whether it is missing, deleted or invisible. No lock. organization_pkey,
-- membership_pkey, partnership_org_id_idx and staff_pkey.
--
-- Parameters: $1 user_id, $2 org_id

SELECT caller.staff, organization.id, organization.name, organization.name_key, organization.domain,
    organization.primary_address, organization.created_at, organization.updated_at,
    organization.deactivated_at, organization.deleted_at, organization.version, own.org_id, own.role,
    own.joined_at, own.active, through.partner_org_id, through.partner_role, through.partner_active,
    through.member_org_id, through.member_role, through.member_joined_at, through.member_active
FROM (SELECT EXISTS (SELECT *
FROM staff
WHERE staff.user_id = $1::VARCHAR) AS staff) AS caller LEFT OUTER JOIN organization
    ON organization.id = $2::UUID LEFT OUTER JOIN membership AS own ON own.user_id = $1::VARCHAR
    AND own.org_id = $2::UUID LEFT OUTER JOIN (SELECT partnership.partner_org_id AS partner_org_id,
    partnership.role AS partner_role, partner.deleted_at IS NULL
    AND partner.deactivated_at IS NULL AS partner_active, members.org_id AS member_org_id,
    members.role AS member_role, members.joined_at AS member_joined_at, members.active AS member_active
FROM partnership JOIN membership AS members ON members.org_id = partnership.partner_org_id
    JOIN organization AS partner ON partner.id = partnership.partner_org_id
WHERE members.user_id = $1::VARCHAR AND partnership.org_id = $2::UUID) AS through ON true;
