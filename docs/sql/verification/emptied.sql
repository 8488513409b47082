-- verification/emptied
--
-- Reads which rows were emptied with erased organizations. A verification, in its snapshot, 10,000 at a time.
-- No lock. Reads the whole table of organizations; journal_org_id_version_key.
--
-- Parameters: $1 after, $2 limit

SELECT position FROM organization AS o JOIN journal AS j ON j.org_id = o.id
WHERE o.name = '' AND position > $1 AND (request_digest = '' AND event_type IS DISTINCT FROM 'org.erased')
    ORDER BY position LIMIT $2;
