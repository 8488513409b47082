-- staged/find_erased
--
-- Finds organizations that were erased, whose rows are emptied again. A rebuild or a recovery, once. Reads
-- what was kept of events.

SELECT DISTINCT org_id FROM restoring_event WHERE event_type = 'org.erased';
