-- staged/read_changed
--
-- Reads the last changes of organizations that changed. A rebuild or a recovery, for each 5,000
-- organizations. journal_org_id_version_key.
--
-- Parameters: $1 after_id, $2 limit

SELECT last.org_id, last.version, last.before, last.after, last.recorded_at,
earlier.version AS earlier_version, earlier.before AS earlier_before, earlier.after AS earlier_after,
earlier.recorded_at AS earlier_recorded_at
FROM (SELECT * FROM restoring_changed WHERE org_id > $1::UUID ORDER BY org_id LIMIT $2::BIGINT) AS page
JOIN journal AS last ON last.org_id = page.org_id AND last.version = page.version
    AND last.event_type IS NOT NULL
LEFT JOIN LATERAL (
SELECT * FROM journal AS each
WHERE each.org_id = page.org_id AND each.version < page.version AND each.event_type IS NOT NULL
AND (each.before IS NOT NULL OR each.after IS NOT NULL) AND last.before IS NULL AND last.after IS NULL
ORDER BY each.version DESC LIMIT 1
) AS earlier ON true
ORDER BY page.org_id;
