-- past/select_last_changes
--
-- Reads the last change of each organization between two positions. An operator's command, seldom, for `orgs
-- diff`, in windows of 200,000 positions. No lock. The window by journal_pkey, and journal_org_id_version_key
-- for each change in it.
--
-- Parameters: $1 position, $2 window_end, $3 version_1 = 1, $4 through, $5 limit

SELECT journal.org_id, journal.version, journal.position, journal.event_type,
    CAST(journal.changed AS JSON) AS changed, CAST(journal.before AS JSON) AS before,
    CAST(journal.after AS JSON) AS after, journal.actor
FROM journal
WHERE journal.position > $1::BIGINT AND journal.position <= $2::BIGINT AND journal.event_type IS NOT NULL
    AND NOT (EXISTS (SELECT *
FROM journal AS journal_1
WHERE journal_1.org_id = journal.org_id AND journal_1.version = journal.version + $3::BIGINT
    AND journal_1.event_type IS NOT NULL AND journal_1.position <= $4::BIGINT)) ORDER BY journal.position
LIMIT $5::INTEGER;
