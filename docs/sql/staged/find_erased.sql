-- staged/find_erased
--
-- Finds organizations that were erased, whose rows are emptied again. A rebuild or a recovery, once. Reads
-- which organizations changed.

SELECT org_id FROM restoring_changed WHERE erased;
