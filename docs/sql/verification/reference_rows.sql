-- verification/reference_rows
--
-- Reads the facts of buckets. A verification where digests differ. No lock. Reads the whole table.
--
-- Parameters: $1 kind, $2 buckets

SELECT key, content FROM (
SELECT 'memberships' AS kind, user_id || ':' || org_id AS key,
concat_ws(' ', role, (extract(epoch FROM joined_at) * 1000000)::bigint, active) AS content FROM membership
UNION ALL SELECT 'partnerships', partner_org_id || ':' || org_id, role FROM partnership
UNION ALL SELECT 'staff', user_id, '' FROM staff
) AS fact WHERE kind = $1 AND (('x' || substr(md5(key), 1, 3))::bit(12)::int & 1023) = ANY($2);
