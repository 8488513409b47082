-- organizations/find_holders
--
-- Reads who holds names. The worker, once in each batch that claims names, after the locks; again as the last
-- statement, for names that a batch took and gave up. No lock. organization_name_key_key.
--
-- Parameters: $1 keys

SELECT organization.name_key, organization.id
FROM organization
WHERE organization.name_key = any($1::TEXT[]);
