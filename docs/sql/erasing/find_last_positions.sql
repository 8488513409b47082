-- erasing/find_last_positions
--
-- Reads the last row of each in the journal. A step of `orgs erase` or `orgs purge`. No lock.
-- journal_org_id_version_key and journal_org_id_unchanged_idx.
--
-- Parameters: $1 ids

SELECT rows_of_each.org_id, max(rows_of_each.position) AS max_1
FROM (SELECT journal.org_id AS org_id, journal.position AS position
FROM journal
WHERE journal.org_id = any($1::UUID[]) AND journal.event_type IS NOT NULL
    UNION ALL SELECT journal.org_id AS org_id, journal.position AS position
FROM journal
WHERE journal.org_id = any($1::UUID[]) AND journal.event_type IS NULL
    AND journal.org_id IS NOT NULL) AS rows_of_each GROUP BY rows_of_each.org_id;
