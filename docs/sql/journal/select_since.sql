-- journal/select_since
--
-- Reads all changes of organizations from a version of each on, up to a position. An operator's plan and run
-- of `orgs undo`, some hundred at a time. No lock. journal_org_id_version_key.
--
-- Parameters: $1 since_org_id, $2 since_version, $3 through

SELECT journal.org_id, journal.version, journal.position, journal.event_type,
    CAST(journal.changed AS JSON) AS changed, CAST(journal.before AS JSON) AS before,
    CAST(journal.after AS JSON) AS after, journal.actor
FROM unnest($1::UUID[], $2::BIGINT[]) AS since(org_id, version) JOIN journal ON journal.org_id = since.org_id
    AND journal.version >= since.version
WHERE journal.event_type IS NOT NULL AND journal.position <= $3::BIGINT ORDER BY journal.org_id,
    journal.version;
