-- organizations/check_names
--
-- Checks the unique names now rather than at the commit. The worker, once in each batch in which a name
-- changes hands. No further lock.

SET CONSTRAINTS organization_name_key_key IMMEDIATE;
