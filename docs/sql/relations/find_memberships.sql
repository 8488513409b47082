-- relations/find_memberships
--
-- Reads what the users of a batch are in its organizations and in their partners. The worker, once in each
-- batch with tokens, after the locks. No lock. membership_pkey and partnership_org_id_idx; a batch of
-- thousands reads all partnerships where they are not many more.
--
-- Parameters: $1 asked_user_id, $2 asked_org_id

SELECT membership.user_id, membership.org_id, membership.role, membership.joined_at, membership.active
FROM membership JOIN unnest($1::TEXT[], $2::UUID[]) AS asked(user_id, org_id)
    ON membership.user_id = asked.user_id AND membership.org_id = asked.org_id
    UNION SELECT membership.user_id, membership.org_id, membership.role, membership.joined_at,
    membership.active
FROM membership JOIN (SELECT DISTINCT asked.user_id AS user_id, partnership.partner_org_id AS org_id
FROM unnest($1::TEXT[], $2::UUID[]) AS asked(user_id, org_id) JOIN partnership
    ON partnership.org_id = asked.org_id) AS of_partners ON membership.user_id = of_partners.user_id
    AND membership.org_id = of_partners.org_id;
