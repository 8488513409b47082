-- recorded/find_given_up
--
-- Finds the changes by which names were given up. A rehearsal, in windows of 20,000 positions, once a name
-- was not taken as it was asked for. No lock. Reads the window by journal_pkey.
--
-- Parameters: $1 after, $2 through, $3 param_1 = "name"

SELECT journal.position, journal.org_id, journal.before
FROM journal
WHERE journal.position > $1::BIGINT AND journal.position <= $2::BIGINT AND journal.before IS NOT NULL
    AND (journal.event_type = 'org.deleted' OR journal.event_type = 'org.updated'
    AND (journal.changed LIKE '%' || $3::VARCHAR || '%')) ORDER BY journal.position;
