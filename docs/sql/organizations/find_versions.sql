-- organizations/find_versions
--
-- Reads at which version organizations are now, deleted ones included. An operator's plan of `orgs apply` or
-- `orgs undo`, some hundred at a time. No lock. organization_pkey.
--
-- Parameters: $1 ids

SELECT organization.id, organization.version
FROM organization
WHERE organization.id = any($1::UUID[]);
