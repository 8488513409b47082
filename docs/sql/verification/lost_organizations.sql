-- verification/lost_organizations
--
-- Finds organizations that the table lacks. A verification where digests differ. No lock. Reads the whole
-- journal.
--
-- Parameters: $1 through, $2 buckets, $3 limit

SELECT DISTINCT org_id FROM journal AS j
WHERE event_type IS NOT NULL AND position <= $1 AND ((get_byte(uuid_send(coalesce(org_id, command_id)),
    14) & 3) << 8 | get_byte(uuid_send(coalesce(org_id, command_id)), 15)) = ANY($2)
AND NOT EXISTS (SELECT FROM organization AS o WHERE o.id = j.org_id) ORDER BY org_id LIMIT $3;
