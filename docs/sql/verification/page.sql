-- verification/page
--
-- Digests the next organizations and compares each with its last change. A verification, for each part of
-- 20,000 organizations, in one snapshot. No lock. organization_pkey and journal_org_id_version_key.
--
-- Parameters: $1 after, $2 limit

WITH page AS MATERIALIZED (
SELECT o.id AS org_id, after IS NOT NULL AS there,
CASE WHEN after IS NOT NULL THEN ('x' || md5(concat(o.id, ' ', o.version, ' ',
    after)))::bit(128) END AS state,
hashtextextended(concat(o.id, ' ', o.version, ' ', octet_length(after), split_part(after,
    '"primary_address":', 1)), 1) AS link,
coalesce(CASE WHEN o.name = '' THEN j.event_type = 'org.erased' AND o.deleted_at IS NOT NULL
    AND o.updated_at = j.recorded_at WHEN o.deleted_at IS NOT NULL THEN j.after IS NULL
    AND o.deleted_at IS NOT NULL AND j.before::jsonb ->> 'name' = o.name
    AND j.before::jsonb ->> 'domain' IS NOT DISTINCT FROM o.domain
    AND nullif(j.before::jsonb -> 'primary_address', 'null') IS NOT DISTINCT FROM o.primary_address
    AND (j.before::jsonb ->> 'created_at')::timestamptz = o.created_at
    AND (j.before::jsonb ->> 'deactivated_at')::timestamptz IS NOT DISTINCT FROM o.deactivated_at
    AND o.deleted_at = j.recorded_at AND o.updated_at = j.recorded_at AND o.name_key IS NULL
WHEN j.after = concat('{"id":"', o.id, '","name":', to_json(o.name), ',"domain":',
    coalesce(to_json(o.domain)::text, 'null'), ',"created_at":"',
    replace(to_char(o.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'), '.000000', '') || 'Z',
    '","updated_at":"', replace(to_char(o.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US'),
    '.000000', '') || 'Z', '","primary_address":', split_part(split_part(j.after, '"primary_address":', 2),
    ',"deactivated":', 1), ',"deactivated":',
    coalesce('true,"deactivated_at":"' || replace(to_char(o.deactivated_at AT TIME ZONE 'UTC',
    'YYYY-MM-DD"T"HH24:MI:SS.US'), '.000000', '') || 'Z' || '"', 'false,"deactivated_at":null'),
    ',"version":', o.version, '}') AND nullif(split_part(split_part(j.after, '"primary_address":', 2),
    ',"deactivated":', 1)::jsonb, 'null') IS NOT DISTINCT FROM o.primary_address
    AND o.name_key IS NOT NULL THEN true ELSE j.after IS NOT NULL AND o.deleted_at IS NULL
    AND j.after::jsonb = jsonb_build_object('id', o.id, 'name', o.name, 'domain', o.domain, 'primary_address',
    o.primary_address, 'version', o.version, 'created_at', j.after::jsonb -> 'created_at', 'updated_at',
    j.after::jsonb -> 'updated_at', 'deactivated', o.deactivated_at IS NOT NULL, 'deactivated_at',
    j.after::jsonb -> 'deactivated_at') AND (j.after::jsonb ->> 'created_at')::timestamptz = o.created_at
    AND (j.after::jsonb ->> 'updated_at')::timestamptz = o.updated_at
    AND (j.after::jsonb ->> 'deactivated_at')::timestamptz IS NOT DISTINCT FROM o.deactivated_at
    AND o.name_key IS NOT NULL END, false) AS fits
FROM (SELECT * FROM organization WHERE id > $1 ORDER BY id LIMIT $2) AS o
LEFT JOIN journal AS j ON j.org_id = o.id AND j.version = o.version AND j.event_type IS NOT NULL
)
SELECT ((get_byte(uuid_send(org_id), 14) & 3) << 8 | get_byte(uuid_send(org_id), 15)) AS bucket,
    count(*) AS rows, max(org_id::text COLLATE "C") AS last,
array_agg(org_id) FILTER (WHERE NOT fits) AS differing,
count(*) FILTER (WHERE there) AS states, bit_xor(state)::text AS state_xor, bit_xor(link) AS chain
FROM page GROUP BY 1;
