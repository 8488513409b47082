-- verification/window
--
-- Digests a part of the journal. A verification, for each part of 10,000 rows. No lock. journal_pkey.
--
-- Parameters: $1 events_from, $2 results_from, $3 after, $4 through

SELECT count(*) AS rows,
count(event_type) FILTER (WHERE position > $1 AND NOT (request_digest = ''
    AND event_type IS DISTINCT FROM 'org.erased')) AS events,
bit_xor(('x' || md5(concat(event_type, '{"org_id":"', org_id, '","version":', version, ',"position":',
    position, ',"changed":', coalesce(changed, '[]'), ',"before":', coalesce(before, 'null'), ',"after":',
    coalesce(after, 'null'), ',"command_id":"', command_id, '","actor":', coalesce(to_json(actor)::text,
    'null'), ',"recorded_at":"', replace(to_char(recorded_at AT TIME ZONE 'UTC',
    'YYYY-MM-DD"T"HH24:MI:SS.US'), '.000000', '') || 'Z', '"}')))::bit(128)) FILTER (
WHERE event_type IS NOT NULL AND position > $1 AND NOT (request_digest = ''
    AND event_type IS DISTINCT FROM 'org.erased'))::text AS event_xor,
count(*) FILTER (WHERE position > $2 AND NOT (request_digest = ''
    AND event_type IS DISTINCT FROM 'org.erased')) AS results,
bit_xor(('x' || md5(concat('{"command_id":"', command_id, '","org_id":', coalesce('"' || org_id || '"',
    'null'), ',"outcome":"', outcome, '","code":', code, ',"version":', coalesce(version::text, 'null'),
    ',"organization":', coalesce(after, 'null'), ',"position":', position, ',"problem":', coalesce(problem,
    'null'), ',"final":true}')))::bit(128)) FILTER (WHERE position > $2 AND NOT (request_digest = ''
    AND event_type IS DISTINCT FROM 'org.erased'))::text AS result_xor,
count(*) FILTER (WHERE event_type IS NOT NULL AND version = 1) AS firsts,
    bit_xor(hashtextextended(concat(org_id, ' ', version, ' ', octet_length(after), split_part(after,
    '"primary_address":', 1)), 1) # CASE WHEN version > 1 THEN hashtextextended(concat(org_id, ' ',
    version - 1, ' ', octet_length(before), split_part(before, '"primary_address":', 1)),
    1) ELSE 0 END) FILTER (WHERE event_type IS NOT NULL) AS chain
FROM journal WHERE position > $3 AND position <= $4;
