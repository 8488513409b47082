-- erasing/count
--
-- Counts the rows of organizations. An operator's plan of `orgs erase` or `orgs purge`. No lock.
-- journal_org_id_version_key and journal_org_id_unchanged_idx; reads the other two tables whole.
--
-- Parameters: $1 ids, $2 keys

SELECT (SELECT count(*) AS count_1
FROM journal
WHERE journal.org_id = any($1::UUID[]) AND journal.event_type IS NOT NULL) + (SELECT count(*) AS count_2
FROM journal
WHERE journal.org_id = any($1::UUID[]) AND journal.event_type IS NULL
    AND journal.org_id IS NOT NULL) AS journal, (SELECT count(*) AS count_3
FROM parked
WHERE parked.org_id = any($1::UUID[]) OR parked.key = any($2::BYTEA[])) AS parked, (SELECT count(*) AS count_4
FROM accepted_command
WHERE accepted_command.org_id = any($1::UUID[])) AS accepted;
