-- erasing/forget_accepted
--
-- Deletes their commands that were answered with 202. A step of `orgs erase` or `orgs purge`. Locks these
-- rows. Reads the whole table.
--
-- Parameters: $1 ids

DELETE FROM accepted_command WHERE accepted_command.org_id = any($1::UUID[]);
