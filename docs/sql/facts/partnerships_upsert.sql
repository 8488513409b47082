-- facts/partnerships_upsert
--
-- Writes facts; a row that is there as it is stays untouched. The worker, in each batch of reference data.
-- Row locks until the commit. partnership_pkey.
--
-- Parameters: $1 given_partner_org_id, $2 given_org_id, $3 given_role

INSERT INTO partnership (partner_org_id, org_id, role) SELECT given.partner_org_id, given.org_id, given.role
FROM unnest($1::UUID[], $2::UUID[], $3::TEXT[]) AS given(partner_org_id, org_id, role)
    ON CONFLICT (partner_org_id, org_id) DO UPDATE SET role = excluded.role
    WHERE partnership.role IS DISTINCT FROM excluded.role;
