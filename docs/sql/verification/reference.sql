-- verification/reference
--
-- Digests the reference tables. A verification, once, in its snapshot. No lock. Reads the whole tables.

SELECT kind, (('x' || substr(md5(key), 1, 3))::bit(12)::int & 1023) AS bucket, count(*) AS facts,
    bit_xor(('x' || md5(concat(key, ' ', content)))::bit(128))::text AS fact_xor
FROM (
SELECT 'memberships' AS kind, user_id || ':' || org_id AS key,
concat_ws(' ', role, (extract(epoch FROM joined_at) * 1000000)::bigint, active) AS content FROM membership
UNION ALL SELECT 'partnerships', partner_org_id || ':' || org_id, role FROM partnership
UNION ALL SELECT 'staff', user_id, '' FROM staff
) AS fact GROUP BY 1, 2;
