-- organizations/count
--
-- Counts organizations by what they are. An operator's command, seldom. No lock. Reads the whole table.

SELECT count(*) FILTER (WHERE organization.deleted_at IS NULL
    AND organization.deactivated_at IS NULL) AS anon_1, count(*) FILTER (WHERE organization.deleted_at IS NULL
    AND organization.deactivated_at IS NOT NULL) AS anon_2,
    count(*) FILTER (WHERE organization.deleted_at IS NOT NULL) AS anon_3
FROM organization;
