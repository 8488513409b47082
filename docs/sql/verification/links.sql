-- verification/links
--
-- Finds changes that do not follow the one before. A verification where digests differ. No lock. Reads the
-- whole journal.
--
-- Parameters: $1 through, $2 buckets, $3 limit

SELECT org_id, position, version, version_before, fits FROM (
SELECT org_id, position, version, lag(version) OVER history AS version_before,
coalesce(before, 'null')::jsonb = coalesce(lag(after) OVER history, 'null')::jsonb AS fits
FROM journal WHERE event_type IS NOT NULL AND position <= $1 AND ((get_byte(uuid_send(coalesce(org_id,
    command_id)), 14) & 3) << 8 | get_byte(uuid_send(coalesce(org_id, command_id)), 15)) = ANY($2)
WINDOW history AS (PARTITION BY org_id ORDER BY version)) AS link
WHERE NOT fits OR version <> coalesce(version_before, 0) + 1 ORDER BY org_id, version LIMIT $3;
