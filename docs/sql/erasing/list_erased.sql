-- erasing/list_erased
--
-- Lists erased organizations. `orgs erase --status`. No lock. Reads the whole table, and
-- journal_org_id_version_key.
--
-- Parameters: $1 ids

SELECT organization.id, organization.deleted_at, journal.recorded_at, journal.position
FROM organization JOIN journal ON journal.org_id = organization.id AND journal.version = organization.version
    AND journal.event_type IS NOT NULL
WHERE organization.name = '' AND ($1::UUID[] IS NULL OR organization.id = any($1::UUID[]))
    ORDER BY organization.id;
