-- erasing/count_left
--
-- Counts rows from before an erasure that still say something. `orgs erase --status`, a thousand
-- organizations at a time. No lock. journal_org_id_version_key and journal_org_id_unchanged_idx; reads the
-- other two tables whole.
--
-- Parameters: $1 erased_before_id, $2 erased_before_position, $3 erased_before_erased_at, $4 forgotten, $5
--   convert_to_1 = UTF8

SELECT (SELECT count(*) AS count_1
FROM journal, unnest($1::UUID[], $2::BIGINT[], $3::TIMESTAMP WITH TIME ZONE[]) AS erased_before(id, position,
    erased_at)
WHERE journal.org_id = erased_before.id AND journal.event_type IS NOT NULL
    AND journal.position < erased_before.position AND (journal.before IS NOT NULL OR journal.after IS NOT NULL
    OR journal.actor IS NOT NULL OR length(journal.request_digest) > 0
    OR (journal.problem NOT LIKE '%' || $4::VARCHAR || '%'))) + (SELECT count(*) AS count_2
FROM journal, unnest($1::UUID[], $2::BIGINT[], $3::TIMESTAMP WITH TIME ZONE[]) AS erased_before(id, position,
    erased_at)
WHERE journal.org_id = erased_before.id AND journal.event_type IS NULL AND journal.org_id IS NOT NULL
    AND journal.position < erased_before.position AND (journal.before IS NOT NULL OR journal.after IS NOT NULL
    OR journal.actor IS NOT NULL OR length(journal.request_digest) > 0
    OR (journal.problem NOT LIKE '%' || $4::VARCHAR || '%'))) AS journal, (SELECT count(*) AS count_3
FROM parked, unnest($1::UUID[], $2::BIGINT[], $3::TIMESTAMP WITH TIME ZONE[]) AS erased_before(id, position,
    erased_at)
WHERE (parked.org_id = erased_before.id OR parked.key = convert_to(CAST(erased_before.id AS TEXT),
    $5::VARCHAR)) AND parked.recorded_at < erased_before.erased_at AND (parked.key IS NOT NULL
    OR parked.value IS NOT NULL OR parked.actor IS NOT NULL OR parked.headers != '[]')) AS parked,
    (SELECT count(*) AS count_4
FROM accepted_command, unnest($1::UUID[], $2::BIGINT[], $3::TIMESTAMP WITH TIME ZONE[]) AS erased_before(id,
    position, erased_at)
WHERE accepted_command.org_id = erased_before.id
    AND accepted_command.accepted_at < erased_before.erased_at) AS accepted;
