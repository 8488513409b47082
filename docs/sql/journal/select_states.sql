-- journal/select_states
--
-- Reads what organizations were as of a position: of each the last change up to it. An operator's plan and
-- run of `orgs apply`, some hundred at a time. No lock. journal_org_id_version_key.
--
-- Parameters: $1 asked_org_id, $2 through, $3 param_1 = 1

SELECT last.org_id, last.position, last.version, last.after
FROM unnest($1::UUID[]) AS asked(org_id) JOIN LATERAL (SELECT journal.org_id AS org_id,
    journal.position AS position, journal.version AS version, CAST(journal.after AS JSON) AS after
FROM journal
WHERE journal.org_id = asked.org_id AND journal.event_type IS NOT NULL AND journal.position <= $2::BIGINT
    ORDER BY journal.version DESC
LIMIT $3::INTEGER) AS last ON true;
