-- organizations/find_names
--
-- Reads the names of organizations that a batch restores. The worker, before the locks, only in batches with
-- such commands. No lock. organization_pkey.
--
-- Parameters: $1 ids

SELECT organization.id, organization.name
FROM organization
WHERE organization.id = any($1::UUID[]);
