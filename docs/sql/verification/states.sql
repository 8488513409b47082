-- verification/states
--
-- Reads what the journal leaves of organizations. A verification where digests differ. No lock. Reads the
-- whole journal.
--
-- Parameters: $1 through, $2 buckets

SELECT org_id, version, position, after FROM (
SELECT DISTINCT ON (org_id) org_id, version, position, after FROM journal
WHERE event_type IS NOT NULL AND position <= $1 AND ((get_byte(uuid_send(coalesce(org_id, command_id)),
    14) & 3) << 8 | get_byte(uuid_send(coalesce(org_id, command_id)), 15)) = ANY($2)
ORDER BY org_id, version DESC) AS last;
