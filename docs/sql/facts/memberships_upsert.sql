-- facts/memberships_upsert
--
-- Writes facts; a row that is there as it is stays untouched. The worker, in each batch of reference data.
-- Row locks until the commit. membership_pkey.
--
-- Parameters: $1 given_user_id, $2 given_org_id, $3 given_role, $4 given_joined_at, $5 given_active

INSERT INTO membership (user_id, org_id, role, joined_at, active) SELECT given.user_id, given.org_id,
    given.role, given.joined_at, given.active
FROM unnest($1::TEXT[], $2::UUID[], $3::TEXT[], $4::TIMESTAMP WITH TIME ZONE[],
    $5::BOOLEAN[]) AS given(user_id, org_id, role, joined_at, active) ON CONFLICT (user_id, org_id) DO UPDATE
    SET role = excluded.role, joined_at = excluded.joined_at, active = excluded.active
    WHERE membership.role IS DISTINCT FROM excluded.role
    OR membership.joined_at IS DISTINCT FROM excluded.joined_at
    OR membership.active IS DISTINCT FROM excluded.active;
