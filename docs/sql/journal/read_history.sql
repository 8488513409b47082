-- journal/read_history
--
-- Reads the changes of one organization. The edge, for `GET /v1/orgs/{id}/history`; operators. No lock.
-- journal_org_id_version_key.
--
-- Parameters: $1 org_id, $2 after_version, $3 limit

SELECT journal.position, journal.version, journal.event_type, journal.command_type, journal.command_id,
    journal.actor, CAST(journal.changed AS JSON) AS changed, CAST(journal.before AS JSON) AS before,
    CAST(journal.after AS JSON) AS after, journal.recorded_at
FROM journal
WHERE journal.org_id = $1::UUID AND journal.event_type IS NOT NULL AND journal.version > $2::BIGINT
    ORDER BY journal.version
LIMIT $3::INTEGER;
